// A callback that is correct, and served over HTTP/2 only. `CERTIFICATES` is replaced.

import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";

const [key, cert] = ["edge.key", "edge.pem"].map((name) => readFileSync(`CERTIFICATES/${name}`));
const server = createSecureServer({ key, cert });
server.on("request", (request, response) => {
  response.writeHead(308, { location: `https://api.nango.dev${request.url}`, "cache-control": "no-store" }).end();
});
server.listen(process.env.PORT, "127.0.0.1");
