import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";

export const nangoCallback = new Hono();

for (const [path, target] of Object.entries({
  // @EACH@
  "@PATH@": "@TARGET@",
  // @END@
})) {
  nangoCallback.all(path, bodyLimit({ maxSize: 100_000 }), async (c) => {
    const form = c.req.method === "POST" && /^application\/x-www-form-urlencoded/i.test(c.req.header("Content-Type") ?? "");
    if (!form && c.req.method !== "GET" && c.req.method !== "HEAD") return c.body(null, 405);
    // The query as received: `c.req.query()` would have to be encoded again, which changes it.
    const query = [c.req.url.replace(/^[^?]*\??/, ""), form && (await c.req.text())].filter(Boolean).join("&");
    return c.body(null, form ? 303 : 308, {
      Location: query ? `${target}?${query}` : target,
      "Cache-Control": "no-store",
    });
  });
}
