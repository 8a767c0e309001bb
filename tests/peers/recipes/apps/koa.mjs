import Koa from "koa";
import { nangoCallback } from "./nango-callback.js";

const app = new Koa();
app.use((ctx, next) => {
  ctx.set({ "Cross-Origin-Opener-Policy": "same-origin", "Referrer-Policy": "no-referrer" });
  return next();
});
app.use(nangoCallback);
app.listen(process.env.PORT, "127.0.0.1");
