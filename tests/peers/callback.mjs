// Callbacks as applications have them. The argument says which; it says `{"port"}`.

import { createServer } from "node:http";
import helmet from "helmet";
import { heard, listen, say } from "./lines.mjs";

const TARGET = "https://api.nango.dev/oauth/callback";
const noStore = { "Cache-Control": "no-store" };

const callbacks = {
  // The raw query, as it came.
  right(request, answer) {
    const at = request.url.indexOf("?");
    const query = at < 0 ? "" : request.url.slice(at);
    answer.writeHead(308, { Location: TARGET + query, ...noStore }).end();
  },
  // Parsed and built anew.
  search_params(request, answer) {
    const { searchParams } = new URL(request.url, "http://here");
    answer.writeHead(308, { Location: `${TARGET}?${searchParams}`, ...noStore }).end();
  },
  // One value a name.
  from_entries(request, answer) {
    const { searchParams } = new URL(request.url, "http://here");
    const query = new URLSearchParams(Object.fromEntries(searchParams));
    answer.writeHead(308, { Location: `${TARGET}?${query}`, ...noStore }).end();
  },
  // Right, behind the headers that helmet sets unless told otherwise.
  helmet(request, answer) {
    helmet()(request, answer, () => callbacks.right(request, answer));
  },
  // Every header of the request handed on.
  echo(request, answer) {
    for (const [name, value] of Object.entries(request.headers)) answer.setHeader(name, value);
    callbacks.right(request, answer);
  },
};

const server = createServer(callbacks[process.argv[2]]);
heard();
say({ port: await listen(server) });
