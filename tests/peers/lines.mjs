// How a program of this folder talks with the test that started it: lines of JSON, out by `say`,
// in by `heard`; the end of the input is the end of the program.

import { createInterface } from "node:readline";

export const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const input = createInterface({ input: process.stdin });

/** Hands each line to `handle`; `end` runs before the program goes. */
export function heard(handle = () => {}, end = () => {}) {
  input.on("line", (line) => handle(JSON.parse(line)));
  input.on("close", async () => {
    await end();
    process.exit(0);
  });
}

/** Listens on a port that the machine chooses; tells it. */
export const listen = (server) =>
  new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });
