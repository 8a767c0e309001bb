// Callbacks of applications, selected by the argument. Sends `{"port"}`.

import { createServer } from "node:http";
import helmet from "helmet";
import { listen, onMessage, send } from "./lines.mjs";

const TARGET = "https://api.nango.dev/oauth/callback";
const noStore = { "Cache-Control": "no-store" };

const callbacks = {
  // The raw query, unchanged.
  correct(request, response) {
    const at = request.url.indexOf("?");
    const query = at < 0 ? "" : request.url.slice(at);
    response.writeHead(308, { Location: TARGET + query, ...noStore }).end();
  },
  // One value per name.
  from_entries(request, response) {
    const { searchParams } = new URL(request.url, "http://here");
    const query = new URLSearchParams(Object.fromEntries(searchParams));
    response.writeHead(308, { Location: `${TARGET}?${query}`, ...noStore }).end();
  },
  // Correct, with the default headers of helmet.
  helmet(request, response) {
    helmet()(request, response, () => callbacks.correct(request, response));
  },
  // Copies every header of the request to the response.
  echo(request, response) {
    for (const [name, value] of Object.entries(request.headers)) response.setHeader(name, value);
    callbacks.correct(request, response);
  },
};

const server = createServer(callbacks[process.argv[2]]);
onMessage();
send({ port: await listen(server) });
