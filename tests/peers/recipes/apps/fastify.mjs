import fastify from "fastify";
import { nangoCallback } from "./nango-callback.js";

const app = fastify();
app.addHook("onRequest", async (_request, reply) => {
  reply.header("Cross-Origin-Opener-Policy", "same-origin").header("Referrer-Policy", "no-referrer");
});
app.register(nangoCallback);
await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
