// Callbacks in Hono. The first segment of the path selects one.

import { serve } from "@hono/node-server";
import { Hono } from "hono";

const app = new Hono();
const target = (c) => `https://api.nango.dev/${c.req.path.split("/").slice(2).join("/")}`;
const raw = (c) => {
  const at = c.req.url.indexOf("?");
  return at < 0 ? "" : c.req.url.slice(at);
};
app.use(async (c, next) => {
  await next();
  c.header("Cache-Control", "no-store");
});
app.all("/correct/*", (c) => c.body(null, 308, { Location: target(c) + raw(c) }));
app.all("/redirect/*", (c) => c.redirect(target(c) + new URL(c.req.url).search, 308));
app.all("/web/*", (c) => Response.redirect(target(c) + raw(c), 308));
app.all("/rebuilt/*", (c) => c.redirect(`${target(c)}?${new URLSearchParams(c.req.query())}`, 308));

serve({ fetch: app.fetch, port: Number(process.env.PORT), hostname: "127.0.0.1" });
