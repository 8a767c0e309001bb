// Callbacks in Koa. The first segment of the path selects one.

import Koa from "koa";

const callbacks = {
  correct(context, target, query) {
    context.status = 308;
    context.set("Location", target + query);
  },
  redirect(context, target, query) {
    context.redirect(target + query);
    context.status = 308;
  },
  search(context, target) {
    context.redirect(target + context.search);
    context.status = 308;
  },
  rebuilt(context, target) {
    context.redirect(`${target}?${new URLSearchParams(context.query)}`);
    context.status = 308;
  },
};

const app = new Koa();
app.use((context) => {
  const [path] = context.req.url.split("?");
  const [, variant, ...flow] = path.split("/");
  context.set("Cache-Control", "no-store");
  callbacks[variant](context, `https://api.nango.dev/${flow.join("/")}`, context.req.url.slice(path.length));
});
app.listen(process.env.PORT, "127.0.0.1");
