// @cloudflare/workers-oauth-provider, with a store in memory in the place of Workers KV, and with
// authorization pages as in its documentation. `/authorize` reports expected errors, `/unhandled`
// throws them, which the runtime reports as status 500. `/messages` has a page with a captcha that
// contains the messages of all errors; `/german` responds to errors with status 200, in German.

import { register } from "node:module";

// The runtime of Workers provides this module.
const runtime = "export class WorkerEntrypoint {} export class DurableObject {} export const env = {};";
register(
  `data:text/javascript,${encodeURIComponent(`
    export const resolve = (name, context, next) =>
      name === "cloudflare:workers"
        ? { url: "data:text/javascript,${encodeURIComponent(runtime)}", shortCircuit: true }
        : next(name, context);
  `)}`,
);

const { OAuthProvider } = await import("@cloudflare/workers-oauth-provider");
const { createServer } = await import("node:http");
const { clients, listen, report } = await import("./registrations.mjs");

const store = new Map();
const env = {
  OAUTH_KV: {
    get: async (key, options) => {
      const value = store.get(key) ?? null;
      return value !== null && (options === "json" || options?.type === "json") ? JSON.parse(value) : value;
    },
    put: async (key, value) => void store.set(key, value),
    delete: async (key) => void store.delete(key),
    list: async ({ prefix = "" } = {}) => ({
      keys: [...store.keys()].filter((key) => key.startsWith(prefix)).map((name) => ({ name })),
      list_complete: true,
    }),
  },
};
const html = (text, status = 200) =>
  new Response(`<!doctype html>${text}`, { status, headers: { "content-type": "text/html" } });
const messages = `<script nonce="${crypto.randomUUID()}">window.messages = {
  invalid_redirect_uri: "The redirect URI is not registered for this client.",
  invalid_client: "The client is unknown.",
}</script><script src="https://www.google.com/recaptcha/api.js"></script>
<p hidden>Invalid user name or password</p>`;
const authorize = async (request, { OAUTH_PROVIDER: oauth }) => {
  const parsed = await oauth.parseAuthRequest(request);
  if (!request.headers.has("x-user")) {
    const { pathname } = new URL(request.url);
    return html(
      pathname === "/german"
        ? `<h1>Anmelden</h1><form method=post><input name=name><button>Weiter</button></form>`
        : `<h1>Authorize ${parsed.clientId}</h1>${pathname === "/messages" ? messages : ""}
           <form method=post><button>Approve</button></form>`,
    );
  }
  const { redirectTo } = await oauth.completeAuthorization({
    request: parsed,
    userId: "user",
    metadata: {},
    scope: parsed.scope,
    props: {},
  });
  return Response.redirect(redirectTo, 302);
};
let oauth;
const server = createServer(async (incoming, outgoing) => {
  const request = new Request(`${origin}${incoming.url}`, { headers: incoming.headers });
  const context = { waitUntil() {}, passThroughOnException() {}, props: {} };
  const response = await provider.fetch(request, env, context).catch(
    () => new Response("error code: 1101", { status: 500 }),
  );
  outgoing.writeHead(response.status, Object.fromEntries(response.headers)).end(await response.text());
});
const origin = await listen(server);
const provider = new OAuthProvider({
  apiRoute: "/api/",
  apiHandler: { fetch: async () => new Response("ok") },
  defaultHandler: {
    async fetch(request, env) {
      oauth = env.OAUTH_PROVIDER;
      const { pathname } = new URL(request.url);
      if (pathname === "/unhandled") return authorize(request, env);
      if (pathname === "/german") {
        const german = (error) =>
          error.message.includes("redirect")
            ? "Die Weiterleitungs-URI stimmt mit keiner registrierten Adresse überein."
            : "Diese Anwendung ist nicht bekannt.";
        return authorize(request, env).catch((error) =>
          html(`<h1>Fehler</h1><p>${german(error)}</p><small>Vorgang ${crypto.randomUUID()}, ${new Date().toISOString()}</small>`),
        );
      }
      if (!["/authorize", "/messages"].includes(pathname)) return new Response("not found", { status: 404 });
      return authorize(request, env).catch(
        (error) => new Response(error.message, { status: 400 }),
      );
    },
  },
  authorizeEndpoint: "/authorize",
  tokenEndpoint: "/token",
  scopesSupported: ["read"],
  resourceMetadata: { resource: "https://mcp.example.com" },
});

// The helpers come with a request.
await fetch(origin);
const all = clients("public", "confidential", "unhandled", "messages", "german");
for (const client of all) {
  const created = await oauth.createClient({
    redirectUris: client.callbacks,
    tokenEndpointAuthMethod: client.kind === "public" ? "none" : "client_secret_basic",
    clientName: client.id,
  });
  // It selects the ids of clients.
  client.id = created.clientId;
}
const headers = { "x-user": "user" };
await report(
  origin,
  all,
  async (url) => (await fetch(url, { headers, redirect: "manual" })).headers.get("location"),
  (kind) => (["public", "confidential"].includes(kind) ? {} : { path: `/${kind}` }),
);
