import type { FastifyInstance } from "fastify";

export async function nangoCallback(app: FastifyInstance) {
  // In this plugin only, a form is text.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string" }, (_request, body, done) =>
    done(null, body),
  );
  for (const [path, target] of Object.entries({
    // @EACH@
    "@PATH@": "@TARGET@",
    // @END@
  })) {
    app.all(path, async (request, reply) => {
      const form = request.method === "POST" && typeof request.body === "string";
      if (!form && request.method !== "GET" && request.method !== "HEAD") return reply.code(405).send();
      // The query as received: `request.query` would have to be encoded again, which changes it.
      const query = [request.originalUrl.replace(/^[^?]*\??/, ""), form && request.body].filter(Boolean).join("&");
      // `reply.redirect` would encode the URL again.
      reply.headers({ location: query ? `${target}?${query}` : target, "cache-control": "no-store" });
      // @fastify/helmet sets both, and the first one separates the popup from the page that opened it.
      reply.removeHeader("cross-origin-opener-policy").removeHeader("referrer-policy");
      return reply.code(form ? 303 : 308).send();
    });
  }
}
