// REST API: the requests of a preflight, and those of an app for its connections.

import { randomBytes } from "node:crypto";
import { CALLS as OF_THE_ACCOUNT, environments } from "./environments.mjs";

/** Method, path, required scope, and handler. */
const CALLS = [
  ["GET", /^\/integrations$/, "environment:integrations:list", integrations],
  ["GET", /^\/integrations\/([^/]+)$/, "environment:integrations:read", integration],
  ["GET", /^\/providers$/, null, providers],
  ["GET", /^\/providers\/([^/]+)$/, null, provider],
  ["GET", /^\/connections$/, "environment:connections:list", connections],
  ["GET", /^\/connections\/([^/]+)$/, "environment:connections:read", connection],
  ["POST", /^\/connections\/metadata$/, "environment:connections:update", metadata],
  ["PATCH", /^\/connections\/metadata$/, "environment:connections:update", update],
  ["POST", /^\/connect\/sessions$/, "environment:connect_sessions:write", session],
  ...OF_THE_ACCOUNT,
];

export async function rest(nango, incoming, url, response) {
  const respond = (status, body, headers = {}) =>
    response
      .writeHead(status, { "Content-Type": "application/json", ...headers })
      .end(JSON.stringify(body));
  const fail = (status, code, message, headers) =>
    respond(status, { error: { code, message: message ?? code } }, headers);

  if (nango.broken) {
    response.writeHead(200, { "Content-Type": "text/html" }).end("<h1>Welcome to nginx!</h1>");
    return;
  }
  if (url.pathname === "/health") return respond(200, { result: "ok" });
  if (url.pathname === "/providers.json") return respond(200, nango.templates);
  const call = CALLS.find(([method, path]) => incoming.method === method && path.test(url.pathname));
  const isOfTheAccount = OF_THE_ACCOUNT.includes(call);
  if (call === undefined || (isOfTheAccount && nango.old_server)) return fail(404, "not_found");
  if (nango.throttled > 0) {
    nango.throttled -= 1;
    return fail(429, "too_many_request", undefined, { "Retry-After": "0" });
  }
  if (nango.bad_gateways > 0) {
    nango.bad_gateways -= 1;
    response.writeHead(502, { "Content-Type": "text/html" }).end("<h1>Bad Gateway</h1>");
    return;
  }
  const key = /^Bearer (.+)$/.exec(incoming.headers.authorization ?? "")?.[1];
  const environment = environments(nango).find((it) => it.keys[key] !== undefined);
  const ofTheAccount = nango.account_keys?.[key];
  const scopes = environment?.keys[key] ?? ofTheAccount;
  if (scopes === undefined) return fail(401, "unknown_account");
  if (isOfTheAccount !== (ofTheAccount !== undefined)) {
    const what = isOfTheAccount ? "the account" : "an environment";
    return fail(403, "forbidden", `API key is not authorized for ${what}`);
  }
  const [, path, scope, handle] = call;
  const isAllowed = (scope) => scope === null || scopes === "all" || scopes.includes(scope);
  // `read_credentials` includes `read`.
  if (!isAllowed(scope) && !isAllowed(scope?.replace(/:read$/, ":read_credentials"))) {
    return fail(403, "insufficient_scope", scope.includes("connect_sessions")
      ? `Insufficient scope. Required one of: ${scope} or environment:connect_sessions:*`
      : `Insufficient scope. Required: ${scope}`);
  }
  const chunks = await incoming.toArray();
  const body = chunks.length ? JSON.parse(Buffer.concat(chunks).toString()) : {};
  const name = path.exec(url.pathname)[1];
  // The calls of an environment see its own settings.
  const seen = environment ?? nango;
  const lose = () => response.socket.destroy();
  const context = { nango: seen, isAllowed, query: url.searchParams, body, respond, fail, lose };
  handle(context, name && decodeURIComponent(name));
}

const described = ({ unique_key, provider, display_name }) => ({
  unique_key,
  provider,
  display_name: display_name ?? unique_key,
  logo: "",
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
});

function integrations({ nango, query, respond, fail }) {
  if (query.size > 0) return fail(400, "invalid_query_params");
  respond(200, { data: nango.integrations.map(described) });
}

function integration({ nango, isAllowed, query, respond, fail }, key) {
  const found = nango.integrations.find((it) => it.unique_key === key);
  if (found === undefined) return fail(404, "not_found");
  const data = described(found);
  if (
    query.getAll("include").includes("credentials") &&
    isAllowed("environment:integrations:read_credentials")
  ) {
    const type = nango.templates[found.provider]?.auth_mode;
    // The values of Nango's own apps are empty.
    const own = found.shared ? { client_id: "", client_secret: "", scopes: "" } : found;
    const { client_id, client_secret, scopes } = own;
    // Only OAuth apps have these credentials.
    data.credentials = ["OAUTH2", "OAUTH1", "CUSTOM", "APP"].includes(type)
      ? { type, client_id, client_secret, scopes: scopes ?? null }
      : null;
  }
  if (query.getAll("include").includes("webhook")) {
    // It shows the environment, but not every provider has webhooks.
    const has = nango.templates[found.provider]?.webhook_routing_script !== undefined;
    data.webhook_url = has ? `${nango.origin}/webhook/${nango.uuid}/${key}` : null;
  }
  respond(200, { data });
}

function providers({ nango, respond }) {
  respond(200, { data: Object.entries(nango.templates).map(([name, it]) => ({ name, ...it })) });
}

function provider({ nango, respond, fail }, name) {
  const found = nango.templates[name];
  if (found === undefined) return fail(404, "unknown_provider");
  respond(200, { data: { name, ...found } });
}

function connections({ nango, query, respond }) {
  const of = query.get("integrationId")?.split(",");
  const limit = Number(query.get("limit") ?? 1000);
  const from = Number(query.get("page") ?? 0) * limit;
  const all = nango.connections.filter((it) => !of || of.includes(it.provider_config_key));
  const page = all.slice(from, from + limit);
  respond(200, {
    connections: page.map(({ connection_id, provider_config_key, metadata }) => ({
      connection_id,
      provider_config_key,
      metadata,
    })),
  });
}

function connection({ nango, query, respond, fail }, id) {
  const found = nango.connections.find(
    (it) => it.connection_id === id && it.provider_config_key === query.get("provider_config_key"),
  );
  if (found === undefined) return fail(404, "not_found");
  respond(200, found);
}

function metadata({ nango, body, respond, fail }) {
  merge(nango, body, respond, fail, 201, () => body.metadata);
}

function update({ nango, body, respond, fail }) {
  merge(nango, body, respond, fail, 200, (known) => ({ ...known, ...body.metadata }));
}

/** Sets the metadata of one connection or several. */
function merge(nango, body, respond, fail, status, merged) {
  const found = [body.connection_id]
    .flat()
    .map((id) =>
      nango.connections.find(
        (it) => it.connection_id === id && it.provider_config_key === body.provider_config_key,
      ),
    );
  if (found.includes(undefined)) return fail(404, "unknown_connection");
  for (const connection of found) connection.metadata = merged(connection.metadata);
  respond(status, body);
}

function session({ nango, body, respond, fail }) {
  if (nango.capped) return fail(400, "resource_capped");
  if (!body.tags && !body.end_user) return fail(400, "invalid_body");
  const known = (key) => nango.integrations.some((it) => it.unique_key === key);
  const named = [
    ...(body.allowed_integrations ?? []),
    ...Object.keys(body.integrations_config_defaults ?? {}),
  ];
  if (!named.every(known)) return fail(400, "invalid_body");
  const token = `nango_connect_session_${randomBytes(32).toString("hex")}`;
  nango.sessions.set(token, {
    environment: nango,
    allowed: body.allowed_integrations,
    defaults: body.integrations_config_defaults ?? {},
  });
  const expires_at = new Date(Date.now() + 30 * 60_000).toISOString();
  respond(201, { data: { token, connect_link: `http://connect.localhost/?session_token=${token}`, expires_at } });
}
