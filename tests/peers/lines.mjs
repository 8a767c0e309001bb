// How a program of this directory communicates with the test that started it: `send` and `onMessage`
// transfer lines of JSON; the program exits at the end of its input.

import { createInterface } from "node:readline";

export const send = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const input = createInterface({ input: process.stdin });

/** Passes each line to `handle`; runs `end` before the program exits. */
export function onMessage(handle = () => {}, end = () => {}) {
  input.on("line", (line) => handle(JSON.parse(line)));
  input.on("close", async () => {
    await end();
    process.exit(0);
  });
}

/** Listens on a port that the system selects; resolves to it. */
export const listen = (server) =>
  new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });
