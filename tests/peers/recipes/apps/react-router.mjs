// The server of React Router, with the routes as its compiler would list them.
import { createServer } from "node:http";
import { createRequestListener } from "@react-router/node";

const routes = {};
for (const [name, path] of [["callback", "oauth/callback"], ["connect", "app-auth/connect"]]) {
  const id = `routes/nango-${name}`;
  routes[id] = { id, path, module: await import(`./${id}.js`) };
}
const build = {
  entry: { module: { default: () => new Response("a page") } },
  routes,
  assets: { entry: { imports: [], module: "" }, routes: {}, url: "", version: "" },
  publicPath: "/",
  assetsBuildDirectory: "",
  future: {},
  ssr: true,
  isSpaMode: false,
  prerender: [],
  routeDiscovery: { mode: "initial" },
};
createServer(createRequestListener({ build, mode: "production" })).listen(process.env.PORT, "127.0.0.1");
