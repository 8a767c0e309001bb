// A fake of Nango's server: the part of its REST API, its flows and its callback that the redirect
// and the preflight use. `sdk.mjs` and `../browser.mjs` test it with the real SDKs.
//
// Sends `{"port"}`, then receives objects with settings, and responds to each with
// `{"settings": "saved"}`:
//
//   callback       the environment's callback
//   templates      name → template, as `GET /providers/:name` returns it
//   integrations   [{unique_key, provider, client_id, client_secret, scopes}]
//   keys           API key → scopes it has, or "all"
//   public_key     and hmac_key: how flows are started without a session
//   connections    [{connection_id, provider_config_key, connection_config, metadata}]
//   capped         the plan allows no more connections
//   throttled      number of requests to respond to with 429
//   bad_gateways   number of requests to respond to with 502
//   failing        integrations with flows that do not start
//   broken         REST requests get the page of another server
//
// Responds to `{"requests": true}` with the number of requests by method and path,
// `{"requests": {…}}`, and sends `{"callback": {…}}` for each callback.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { listen, onMessage, send } from "../lines.mjs";
import { start, finish } from "./flow.mjs";
import { rest } from "./rest.mjs";

const nango = {
  templates: {},
  integrations: [],
  keys: {},
  connections: [],
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
      start(nango, decodeURIComponent(url.pathname.slice("/oauth/connect/".length)), url, response);
    } else if (isCallback(url) && isInstallation(url)) {
      // Before any lookup, and without a report.
      const to = incoming.headers.referer ?? "https://github.com";
      response.writeHead(302, { Location: to }).end();
    } else if (url.pathname === "/app-auth/connect") {
      response.writeHead(url.searchParams.has("state") ? 404 : 400).end();
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
  Object.assign(nango, message);
  send({ settings: "saved" });
});
send({ port: await listen(server) });
