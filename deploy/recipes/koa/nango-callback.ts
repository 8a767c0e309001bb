import type { Middleware } from "koa";

const targets = new Map([
  // @EACH@
  ["@PATH@", "@TARGET@"],
  // @END@
]);

export const nangoCallback: Middleware = async (ctx, next) => {
  const target = targets.get(ctx.path);
  if (!target) return next();
  let form = "";
  if (ctx.method === "POST" && ctx.is("application/x-www-form-urlencoded")) {
    for await (const chunk of ctx.req) if ((form += chunk).length > 100_000) ctx.throw(413);
  } else if (ctx.method !== "GET" && ctx.method !== "HEAD") {
    ctx.throw(405);
  }
  // The query as received: `ctx.query` would have to be encoded again, which changes it.
  const query = [ctx.originalUrl.replace(/^[^?]*\??/, ""), form].filter(Boolean).join("&");
  // `ctx.redirect` would encode the URL again.
  ctx.set({ Location: query ? `${target}?${query}` : target, "Cache-Control": "no-store" });
  // koa-helmet sets both, and the first one separates the popup from the page that opened it.
  ctx.remove("Cross-Origin-Opener-Policy");
  ctx.remove("Referrer-Policy");
  ctx.status = ctx.method === "POST" ? 303 : 308;
};
