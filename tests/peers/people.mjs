// Users who sign in again and again, through HTTP clients with cookies instead of browsers: they
// follow every redirect and submit the login and consent pages of the provider.
//
// Arguments: Nango's connect URL, the file with the CA of the callback, the number of users. Sends
// `{"ready"}`, then the users sign in until `{"stop": true}`, which is responded to with
// `{"signed_in": {callback: count}, "lost": [reason]}`. `{"until": {callback, count}}` is responded to
// likewise, when that many users have signed in through this callback or one could not.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { onMessage, send } from "./lines.mjs";

const [connect, caFile, users] = process.argv.slice(2);
const ca = readFileSync(caFile);
/** The time between two sign-ins of a user. The provider keeps a limited number of logins. */
const PAUSE_MS = 500;
const MAXIMUM_HOPS = 20;

const signed_in = {};
const lost = [];
let isStopped = false;
let check = () => {};

/** Not every machine resolves subdomains of `localhost`, as browsers do. */
const lookup = (_, options, done) =>
  options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4);

function request(url, cookies, form) {
  const { request } = url.protocol === "https:" ? https : http;
  const own = cookies.get(url.host) ?? new Map();
  cookies.set(url.host, own);
  const headers = { Cookie: [...own].map(([name, value]) => `${name}=${value}`).join("; ") };
  if (form) headers["Content-Type"] = "application/x-www-form-urlencoded";
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method: form ? "POST" : "GET", headers, lookup, ca, agent: false });
    outgoing.on("error", reject);
    outgoing.on("response", async (response) => {
      for (const line of response.headers["set-cookie"] ?? []) {
        const [name, ...value] = line.split(";")[0].split("=");
        own.set(name, value.join("="));
      }
      const body = Buffer.concat(await response.toArray()).toString();
      resolve({ status: response.statusCode, location: response.headers.location, body });
    });
    outgoing.end(form?.toString());
  });
}

/** Signs in once; resolves to the callback with which the provider returned the user. */
async function signIn() {
  const cookies = new Map();
  let url = new URL(connect);
  let form;
  let callback;
  for (let hop = 0; hop < MAXIMUM_HOPS; hop += 1) {
    const { status, location, body } = await request(url, cookies, form);
    form = undefined;
    if (location) {
      url = new URL(location, url);
      if (url.searchParams.has("code")) callback ??= url.origin + url.pathname;
      continue;
    }
    const action = /<form[^>]* action="([^"]+)"/.exec(body)?.[1];
    if (action === undefined) {
      if (body.includes("nango_oauth_callback_success")) return callback;
      throw new Error(`${status} at ${url.origin}${url.pathname}: ${body.slice(0, 500)}`);
    }
    url = new URL(action, url);
    form = new URLSearchParams(
      body.includes('value="login"')
        ? { prompt: "login", login: "person", password: "password" }
        : { prompt: "consent" },
    );
  }
  throw new Error(`more than ${MAXIMUM_HOPS} steps`);
}

async function user() {
  while (!isStopped) {
    try {
      const callback = await signIn();
      signed_in[callback] = (signed_in[callback] ?? 0) + 1;
    } catch (error) {
      lost.push(error.message);
    }
    check();
    await new Promise((resume) => setTimeout(resume, PAUSE_MS));
  }
}

const all = Array.from({ length: Number(users) }, user);
onMessage(async ({ until }) => {
  if (until) {
    await new Promise((resolve) => {
      check = () => {
        if (lost.length > 0 || signed_in[until.callback] >= until.count) resolve();
      };
      check();
    });
  } else {
    isStopped = true;
    await Promise.all(all);
  }
  send({ signed_in, lost });
});
send({ ready: true });
