// A stand-in for Nango's server: its REST, the start of a flow, and the callback that ends it, as
// far as the redirect and the preflight touch them. The real SDKs are held against it by
// `sdk.mjs` and `../browser.mjs`.
//
// It says `{"port"}`, then hears settings as one object, each saved and answered by
// `{"settings": "saved"}`:
//
//   callback       the environment's callback
//   templates      name → template, as `GET /providers/:name` tells it
//   integrations   [{unique_key, provider, client_id, client_secret, scopes}]
//   keys           API key → scopes it has, or "all"
//   public_key     and hmac_key: how flows are started without a session
//   connections    [{connection_id, provider_config_key, connection_config, metadata}]
//   capped         the plan allows no more connections
//   throttled      so many requests are answered 429 before it goes on
//   stumbles       so many requests are answered 502 before it goes on
//   refused        integrations whose flows do not begin
//   broken         REST is answered by a page of somebody else
//
// To `{"requests": true}` it says how often each method and path was asked, `{"requests": {…}}`;
// and it says `{"arrived": {…}}` for each callback.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { listen, onMessage, send } from "../lines.mjs";
import { begin, finish } from "./flow.mjs";
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

const server = createServer(async (incoming, answer) => {
  const url = new URL(incoming.url, "http://nango");
  const asked = `${incoming.method} ${url.pathname}`;
  requests[asked] = (requests[asked] ?? 0) + 1;
  try {
    if (url.pathname.startsWith("/oauth/connect/") && incoming.method === "GET") {
      begin(nango, decodeURIComponent(url.pathname.slice("/oauth/connect/".length)), url, answer);
    } else if (url.pathname === "/oauth/callback") {
      await finish(nango, incoming, url, answer);
    } else {
      await rest(nango, incoming, url, answer);
    }
  } catch (error) {
    answer.writeHead(500).end(`${error.stack}`);
    throw error;
  }
});

// The frontend waits here for the end of its flow.
new WebSocketServer({ server }).on("connection", (socket) => {
  const id = crypto.randomUUID();
  nango.sockets.set(id, socket);
  socket.send(JSON.stringify({ message_type: "connection_ack", ws_client_id: id }));
});

onMessage((told) => {
  if (told.requests) {
    send({ requests });
    return;
  }
  Object.assign(nango, told);
  send({ settings: "saved" });
});
send({ port: await listen(server) });
