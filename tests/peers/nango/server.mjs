// A stand-in for Nango's server: what the redirect must not break, and no more.
//
//   GET  /oauth/connect/:integration   sets the cookie `oauth2-<session>` on its own host, 302 to
//                                      the provider; `authorization_params[k]=v` are passed on
//   GET  /oauth/callback               state, cookie, single use; then a page that tells the opener
//   POST /oauth/callback               a form gets 415
//
// It says `{"port"}`, then hears `{"callback", "provider", "client", "secret"}`, and says
// `{"arrived": {…}}` for each callback: the raw query, the cookie and the outcome.

import { createHash, randomBytes, randomUUID } from "node:crypto";
import { createServer, request } from "node:http";
import { heard, listen, say } from "../lines.mjs";

let settings;
const sessions = new Map();

const server = createServer(async (incoming, answer) => {
  const [path, query] = split(incoming.url);
  const parameters = new URLSearchParams(query);
  if (incoming.method === "GET" && path.startsWith("/oauth/connect/")) {
    connect(path.slice("/oauth/connect/".length), parameters, answer);
  } else if (path === "/oauth/callback") {
    const outcome =
      incoming.method === "GET"
        ? await callback(parameters, incoming.headers.cookie ?? "")
        : { status: 415, error: "invalid_content_type" };
    say({
      arrived: {
        method: incoming.method,
        query: query ?? null,
        cookie: /(^|; )oauth2-/.test(incoming.headers.cookie ?? ""),
        ...outcome,
      },
    });
    tell(answer, outcome, parameters);
  } else {
    answer.writeHead(404).end();
  }
});

function connect(integration, parameters, answer) {
  const session = randomUUID();
  const verifier = randomBytes(32).toString("base64url");
  const secret = randomUUID();
  sessions.set(session, { integration, verifier, secret });
  const to = new URL("/auth", settings.provider);
  to.searchParams.set("client_id", settings.client);
  to.searchParams.set("redirect_uri", settings.callback);
  to.searchParams.set("response_type", "code");
  to.searchParams.set("scope", "openid");
  to.searchParams.set("state", session);
  to.searchParams.set("code_challenge", createHash("sha256").update(verifier).digest("base64url"));
  to.searchParams.set("code_challenge_method", "S256");
  for (const [name, value] of parameters) {
    const inner = /^authorization_params\[(.+)\]$/.exec(name);
    if (inner) to.searchParams.set(inner[1], value);
  }
  answer
    .writeHead(302, {
      Location: to.href,
      "Set-Cookie": `oauth2-${session}=${secret}; Path=/oauth/callback; HttpOnly; SameSite=Lax`,
    })
    .end();
}

async function callback(parameters, cookies) {
  const state = parameters.get("state");
  if (state === null) return { status: 400, error: "No state found in callback" };
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(state)) {
    return { status: 400, error: "invalid_oauth_state" };
  }
  const session = sessions.get(state);
  if (session === undefined) {
    return { status: 400, error: `No session found for state: "${state}"` };
  }
  sessions.delete(state);
  if (!cookies.split("; ").includes(`oauth2-${state}=${session.secret}`)) {
    return { status: 400, error: "state_cookie_err" };
  }
  const code = parameters.get("code");
  if (code === null) return { status: 400, error: "no code" };
  const token = await exchange(code, session.verifier);
  if (token.access_token === undefined) return { status: 400, error: JSON.stringify(token) };
  return { status: 200, integration: session.integration };
}

/** Spends the code at the provider (RFC 6749 §4.1.3). */
function exchange(code, verifier) {
  const { provider, callback, client, secret } = settings;
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code,
    redirect_uri: callback,
    code_verifier: verifier,
  }).toString();
  const { host, port } = new URL(provider);
  return new Promise((resolve, reject) => {
    // By address: names below `localhost` are the browser's to resolve, not every machine's.
    const outgoing = request({
      host: "127.0.0.1",
      port,
      path: "/token",
      method: "POST",
      headers: {
        Host: host,
        Authorization: `Basic ${btoa(`${client}:${secret}`)}`,
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": body.length,
      },
    });
    outgoing.on("error", reject);
    outgoing.on("response", async (response) => {
      const chunks = await response.toArray();
      resolve(JSON.parse(Buffer.concat(chunks).toString()));
    });
    outgoing.end(body);
  });
}

/** The page that ends every flow; a successful one posts to the window that opened it. */
function tell(answer, { status, error, integration }, parameters) {
  const message = { eventType: "AUTHORIZATION_SUCCESS", data: { providerConfigKey: integration } };
  const text = error
    ? `<p>${escape(error)}</p><code>${escape(JSON.stringify(Object.fromEntries(parameters)))}</code>`
    : `<script>window.opener.postMessage(${JSON.stringify(message)}, "*");</script>`;
  answer.writeHead(status, { "Content-Type": "text/html" });
  answer.end(
    `<!-- Nango OAuth flow callback --><html><head><title>Authorization callback</title></head>` +
      `<body>${text}</body></html>`,
  );
}

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

function split(url) {
  const mark = url.indexOf("?");
  return mark < 0 ? [url] : [url.slice(0, mark), url.slice(mark + 1)];
}

heard((told) => {
  settings = told;
  say({ settings: "saved" });
});
say({ port: await listen(server) });
