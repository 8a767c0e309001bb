// A registry of npm at `/`, and one of PyPI at `/simple/`, with the package files of a directory. Sends
// `{"port"}`.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { listen, onMessage, send } from "./lines.mjs";

const directory = process.argv[2];
const files = readdirSync(directory);
const packages = new Map();
let origin;

for (const file of files.filter((file) => file.endsWith(".tgz"))) {
  const archive = readFileSync(join(directory, file));
  const manifest = JSON.parse(execFileSync("tar", ["-xzO", "package/package.json"], { input: archive }));
  const integrity = `sha512-${createHash("sha512").update(archive).digest("base64")}`;
  packages.set(manifest.name, (origin) => ({
    name: manifest.name,
    "dist-tags": { latest: manifest.version },
    versions: { [manifest.version]: { ...manifest, dist: { tarball: `${origin}/files/${file}`, integrity } } },
  }));
}

const wheels = files.filter((file) => file.endsWith(".whl"));

const server = createServer((request, response) => {
  const path = decodeURIComponent(request.url.split("?")[0]).slice(1);
  const [, file] = path.match(/^files\/(.*)$/) ?? [];
  if (files.includes(file)) {
    response.end(readFileSync(join(directory, file)));
  } else if (path === "simple/callback-edge/") {
    const links = wheels.map((file) => `<a href="/files/${file}">${file}</a>`);
    response.setHeader("Content-Type", "text/html").end(`<!DOCTYPE html>${links.join("\n")}`);
  } else if (packages.has(path)) {
    response.setHeader("Content-Type", "application/json").end(JSON.stringify(packages.get(path)(origin)));
  } else {
    response.writeHead(404).end("{}");
  }
});
onMessage();
const port = await listen(server);
origin = `http://127.0.0.1:${port}`;
send({ port });
