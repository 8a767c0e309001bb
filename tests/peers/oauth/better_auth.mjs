// better-auth with its plugins for OpenID Connect and for MCP, and a database in memory.

import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { mcp, oidcProvider } from "better-auth/plugins";
import { createServer } from "node:http";
import { browser, clients, listen, report } from "./registrations.mjs";

const all = clients("public", "confidential", "mcp");
const handlers = {};
const server = createServer((request, response) =>
  handlers[request.url.startsWith("/mcp/") ? "mcp" : "oidc"](request, response),
);
const origin = await listen(server);

const tables = () => ({
  user: [],
  session: [],
  account: [],
  verification: [],
  oauthApplication: all.map(({ id, kind, callbacks }) => ({
    id,
    clientId: id,
    clientSecret: kind === "public" ? null : "of the test",
    name: id,
    type: kind === "public" ? "public" : "web",
    redirectUrls: callbacks.join(","),
    disabled: false,
  })),
  oauthAccessToken: [],
  oauthConsent: [],
});
const trustedClients = all.map(({ id, kind, callbacks }) => ({
  clientId: id,
  clientSecret: "of the test",
  name: id,
  type: kind === "public" ? "public" : "web",
  redirectUrls: callbacks,
  disabled: false,
  skipConsent: true,
}));
const create = (basePath, plugin) =>
  toNodeHandler(
    betterAuth({
      baseURL: origin,
      basePath,
      secret: "a long secret of the test, for the test only",
      database: memoryAdapter(tables()),
      emailAndPassword: { enabled: true },
      rateLimit: { enabled: false },
      telemetry: { enabled: false },
      logger: { disabled: true },
      plugins: [plugin],
    }),
  );
handlers.oidc = create("/api/auth", oidcProvider({ loginPage: "/sign-in", trustedClients }));
handlers.mcp = create("/mcp/auth", mcp({ loginPage: "/sign-in" }));

const body = JSON.stringify({ name: "user", email: "user@example.com", password: "of the test" });
const headers = { "content-type": "application/json", origin };
const visits = { mcp: browser(), oidc: browser() };
await visits.oidc(`${origin}/api/auth/sign-up/email`, { method: "POST", headers, body });
await visits.mcp(`${origin}/mcp/auth/sign-up/email`, { method: "POST", headers, body });

await report(
  origin,
  all,
  async (url, kind) => {
    const response = await visits[kind === "mcp" ? "mcp" : "oidc"](url);
    // Programs that call `fetch` get the location in JSON.
    return response.headers.get("location") ?? (await response.json()).url;
  },
  (kind) => ({
    path: kind === "mcp" ? "/mcp/auth/mcp/authorize" : "/api/auth/oauth2/authorize",
    scope: "openid email",
  }),
);
