// A fake of Nango's server: the part of its REST API, its flows and its callback that the redirect
// and the preflight use. `sdk.mjs` and `../browser.mjs` test it with the real SDKs.
//
// Sends `{"port"}`, then receives objects with settings, and responds to each with
// `{"settings": "saved"}`:
//
//   callback       the environment's callback
//   templates      name → template, as `GET /providers/:name` returns it
//   integrations   [{unique_key, provider, client_id, client_secret, scopes}]; with shared, the app is Nango's
//   keys           API key → scopes it has, or "all"
//   public_key     and hmac_key: how flows are started without a session
//   connections    [{connection_id, provider_config_key, connection_config, metadata}]
//   capped         the plan allows no more connections
//   throttled      number of requests to respond to with 429
//   bad_gateways   number of requests to respond to with 502
//   failing        integrations with flows that do not start
//   account_keys   API key of the account → its scopes, or "all"; opens no environment
//   environments   [{uuid, name, is_production, callback, integrations, keys, public_key}]: several
//                  environments, each with settings of its own, instead of one
//   old_server     a server without the Environments API
//   lost_responses number of saved changes of an environment with a response that is lost
//   new_account    public keys are refused
//   broken         REST requests get the page of another server
//
// Responds to `{"requests": true}` with the number of requests by method and path,
// `{"requests": {…}}`, to `{"patches": true}` with the changes of environments,
// `{"patches": [{name, body}]}`, and sends `{"callback": {…}}` for each callback.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { listen, onMessage, send } from "../lines.mjs";
import { separate } from "./environments.mjs";
import { document, finish, start } from "./flow.mjs";
import { rest } from "./rest.mjs";

const nango = {
  uuid: "0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7a11",
  name: "dev",
  is_production: false,
  templates: {},
  integrations: [],
  keys: {},
  connections: [],
  patches: [],
  sessions: new Map(),
  flows: new Map(),
  sockets: new Map(),
};
const requests = {};

const server = createServer(async (incoming, response) => {
  const url = new URL(incoming.url, "http://nango");
  const request = `${incoming.method} ${url.pathname}`;
  requests[request] = (requests[request] ?? 0) + 1;
  try {
    if (url.pathname.startsWith("/oauth/connect/") && incoming.method === "GET") {
      await start(nango, decodeURIComponent(url.pathname.slice("/oauth/connect/".length)), url, response);
    } else if (isCallback(url) && isInstallation(url)) {
      // Before any lookup, and without a report.
      const to = incoming.headers.referer ?? "https://github.com";
      response.writeHead(302, { Location: to }).end();
    } else if (url.pathname === "/app-auth/connect") {
      response.writeHead(url.searchParams.has("state") ? 404 : 400).end();
    } else if (url.pathname.startsWith("/oauth/client-metadata/")) {
      document(nango, url, response);
    } else if (url.pathname === "/oauth/callback") {
      await finish(nango, incoming, url, response);
    } else {
      await rest(nango, incoming, url, response);
    }
  } catch (error) {
    response.writeHead(500).end(`${error.stack}`);
    throw error;
  }
});

const isCallback = (url) => ["/oauth/callback", "/app-auth/connect"].includes(url.pathname);

/** Whether GitHub sent this after the installation of an app that no flow started. */
const isInstallation = ({ searchParams: query }) =>
  !query.has("state") && query.has("installation_id") && query.has("setup_action");

// The frontend SDK waits here for the end of its flow.
new WebSocketServer({ server }).on("connection", (socket) => {
  const id = crypto.randomUUID();
  nango.sockets.set(id, socket);
  socket.send(JSON.stringify({ message_type: "connection_ack", ws_client_id: id }));
});

onMessage((message) => {
  if (message.requests) {
    send({ requests });
    return;
  }
  if (message.patches) {
    send({ patches: nango.patches });
    return;
  }
  const { environments, ...settings } = message;
  Object.assign(nango, settings);
  if (environments) nango.environments = separate(nango, environments);
  send({ settings: "saved" });
});
const port = await listen(server);
nango.origin = `http://nango.localhost:${port}`;
send({ port });
