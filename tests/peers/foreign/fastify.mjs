// Callbacks in Fastify. The first segment of the path selects one.

import Fastify from "fastify";

const app = Fastify();
// Otherwise a form post is answered with 415.
app.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string" }, (request, body, done) => done(null, body));
const target = (request) => `https://api.nango.dev/${request.params["*"]}`;
const raw = (request) => {
  const at = request.raw.url.indexOf("?");
  return at < 0 ? "" : request.raw.url.slice(at);
};
app.addHook("onSend", async (request, reply) => {
  reply.header("Cache-Control", "no-store");
});
app.all("/correct/*", (request, reply) => reply.code(308).header("Location", target(request) + raw(request)).send());
app.all("/redirect/*", (request, reply) => reply.redirect(target(request) + raw(request), 308));
app.all("/rebuilt/*", (request, reply) => {
  reply.redirect(`${target(request)}?${new URLSearchParams(request.query)}`, 308);
});

await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
