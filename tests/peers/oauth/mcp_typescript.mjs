// The authorization router of the MCP SDK for TypeScript. The kind `auto` is on the provider of its
// examples, which issues a code at once and sets a cookie; the others have a login page.

import { DemoInMemoryAuthProvider } from "@modelcontextprotocol/sdk/examples/server/demoInMemoryOAuthProvider.js";
import { mcpAuthRouter } from "@modelcontextprotocol/sdk/server/auth/router.js";
import express from "express";
import { browser, clients, listen, report } from "./registrations.mjs";

const all = clients("public", "confidential", "auto");

const register = (provider) => {
  for (const { id, kind, callbacks } of all) {
    provider.clientsStore.clients.set(id, {
      client_id: id,
      ...(kind === "public" ? {} : { client_secret: "of the test" }),
      token_endpoint_auth_method: kind === "public" ? "none" : "client_secret_post",
      redirect_uris: callbacks,
    });
  }
  return provider;
};

/** Sends users to a login page. */
class WithLogin extends DemoInMemoryAuthProvider {
  pending = new Map();

  async authorize(client, params, response) {
    const request = crypto.randomUUID();
    this.pending.set(request, [client, params]);
    response.redirect(`/login?request=${request}`);
  }
}

const issuerUrl = new URL("http://localhost/");
const authorizationOptions = { rateLimit: false };
const withLogin = register(new WithLogin());
const auto = express();
auto.use(mcpAuthRouter({ provider: register(new DemoInMemoryAuthProvider()), issuerUrl, authorizationOptions }));
const app = express();
app.use("/auto", auto);
app.get("/login", (request, response) => {
  response.send("<form method=post><input name=user><input name=password type=password></form>");
});
app.post("/login", (request, response) => {
  const [client, params] = withLogin.pending.get(request.query.request);
  return DemoInMemoryAuthProvider.prototype.authorize.call(withLogin, client, params, response);
});
app.use(mcpAuthRouter({ provider: withLogin, issuerUrl, authorizationOptions }));

const origin = await listen(app);
const visit = browser();
await report(
  origin,
  all,
  async (url, kind) => {
    const location = (await visit(url)).headers.get("location");
    if (kind === "auto" || location === null) return location;
    return (await visit(new URL(location, origin), { method: "POST" })).headers.get("location");
  },
  (kind) => (kind === "auto" ? { path: "/auto/authorize" } : {}),
);
