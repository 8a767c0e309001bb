#!/usr/bin/env node
// Runs the program in the package for this platform, which npm installs as an optional dependency.
"use strict";

// Without `node:`, which old versions of Node do not know.
const { spawn } = require("child_process");
const { optionalDependencies } = require("./package.json");

// The exit code of a command that could not run.
const COULD_NOT_RUN = 3;

function fail(error, hint) {
  process.stderr.write(`error: ${error}\nhint: ${hint}\n`);
  process.exit(COULD_NOT_RUN);
}

const platform = `${process.platform}-${process.arch}`;
const packages = Object.keys(optionalDependencies);
const name = packages.find((name) => name.endsWith(`/${platform}`));
if (!name) {
  const platforms = packages.map((name) => name.split("/")[1]).join(", ");
  fail(`there is no program for \`${platform}\``, `it exists for ${platforms}`);
}

let program;
try {
  program = require.resolve(`${name}/callback-edge`);
} catch {
  fail(
    `the package \`${name}\` is not installed`,
    "install again without `--omit=optional`; a lock file or `node_modules` of another platform lacks it too",
  );
}

// A terminal sends SIGINT and SIGQUIT to both processes, and a second SIGINT would end the program immediately.
const fromTerminal = process.stdin.isTTY ? ["SIGINT", "SIGQUIT"] : [];
const signals = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR2"];
// Before the program starts: a signal without a handler would end this process and leave the program running. Handlers
// run only after the last line of this file, so `child` is set.
for (const signal of signals) {
  process.on(signal, () => fromTerminal.includes(signal) || child.kill(signal));
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
child.on("error", (error) => fail(`cannot start \`${program}\`: ${error.code}`, "install the package again"));
child.on("exit", (code, signal) => {
  if (signal === null) process.exit(code);
  signals.forEach((name) => process.removeAllListeners(name));
  process.kill(process.pid, signal);
});
