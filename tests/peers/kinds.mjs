// An API provider with apps of every kind: a certified OpenID provider with clients that have both
// callbacks registered, the old one, the new one or none, and three with an unusual validation.
//
// Arguments: the old and the new callback, and the number of additional apps: `app-0`, `app-1` and so
// on; the even ones have both callbacks registered, the odd ones the old one. Sends `{"port"}`, and
// after `{"requests": true}` the number of authorization requests by client and redirect URI.

import { createServer } from "node:http";
import Provider from "oidc-provider";
import { listen, onMessage, send } from "./lines.mjs";

const [old, fresh, more = 0] = process.argv.slice(2);
const elsewhere = "https://elsewhere.example/callback";
const host = new URL(fresh).origin;

const clients = {
  both: [old, fresh],
  "only-old": [old],
  "only-new": [fresh],
  neither: [elsewhere],
  "after-login": [old],
  unvalidated: [old],
  prefix: [old],
};
for (let number = 0; number < more; number += 1) {
  clients[`app-${number}`] = number % 2 === 0 ? [old, fresh] : [old];
}

const server = createServer();
const port = await listen(server);
const provider = new Provider(`http://provider.localhost:${port}`, {
  clients: Object.entries(clients).map(([client_id, redirect_uris]) => ({
    client_id,
    client_secret: "a-secret-of-the-test",
    redirect_uris,
    response_types: ["code"],
    grant_types: ["authorization_code"],
  })),
  cookies: { keys: ["of-the-test"] },
});

const { redirectUriAllowed } = provider.Client.prototype;
provider.Client.prototype.redirectUriAllowed = function (uri) {
  switch (this.clientId) {
    case "unvalidated":
      return true;
    case "prefix":
      return uri.startsWith(`${host}/`) || redirectUriAllowed.call(this, uri);
    default:
      return redirectUriAllowed.call(this, uri);
  }
};

const requests = {};
provider.use(async (context, next) => {
  const { client_id, redirect_uri } = context.query;
  if (context.path === "/auth" && client_id) {
    const key = `${client_id} ${redirect_uri}`;
    requests[key] = (requests[key] ?? 0) + 1;
    // As if the redirect URI were validated only after the login.
    if (client_id === "after-login") {
      const query = new URLSearchParams(context.querystring);
      query.set("redirect_uri", old);
      context.querystring = `${query}`;
    }
  }
  await next();
});

server.on("request", provider.callback());
onMessage(() => send({ requests }));
send({ port });
