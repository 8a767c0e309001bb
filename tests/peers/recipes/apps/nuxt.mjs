// The server of Nuxt, h3, with the functions that Nuxt imports by itself.
import { createServer } from "node:http";
import * as h3 from "h3";

Object.assign(globalThis, h3);
const app = h3.createApp();
const router = h3.createRouter();
for (const path of ["/oauth/callback", "/app-auth/connect"]) {
  const { default: handler } = await import(`./server/routes${path}.js`);
  router.use(path, handler);
}
app.use(router);
createServer(h3.toNodeListener(app)).listen(process.env.PORT, "127.0.0.1");
