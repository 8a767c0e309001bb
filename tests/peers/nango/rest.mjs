// Nango's REST: the calls of a preflight, and those with which an app reads what a flow brought.

import { randomBytes } from "node:crypto";

/** Method, path, the scope it wants, and what it does. */
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
];

export async function rest(nango, incoming, url, answer) {
  const tell = (status, body, headers = {}) =>
    answer
      .writeHead(status, { "Content-Type": "application/json", ...headers })
      .end(JSON.stringify(body));
  const refuse = (status, code, message, headers) =>
    tell(status, { error: { code, message: message ?? code } }, headers);

  if (nango.broken) {
    answer.writeHead(200, { "Content-Type": "text/html" }).end("<h1>Welcome to nginx!</h1>");
    return;
  }
  if (url.pathname === "/health") return tell(200, { result: "ok" });
  if (url.pathname === "/providers.json") return tell(200, nango.templates);
  const call = CALLS.find(([method, path]) => incoming.method === method && path.test(url.pathname));
  if (call === undefined) return refuse(404, "not_found");
  if (nango.throttled > 0) {
    nango.throttled -= 1;
    return refuse(429, "too_many_request", undefined, { "Retry-After": "1" });
  }
  if (nango.stumbles > 0) {
    nango.stumbles -= 1;
    answer.writeHead(502, { "Content-Type": "text/html" }).end("<h1>Bad Gateway</h1>");
    return;
  }
  const key = /^Bearer (.+)$/.exec(incoming.headers.authorization ?? "")?.[1];
  const scopes = nango.keys[key];
  if (scopes === undefined) return refuse(401, "unknown_user_account");
  const [, path, scope, handle] = call;
  const may = (scope) => scope === null || scopes === "all" || scopes.includes(scope);
  // Who may read credentials may read the rest.
  if (!may(scope) && !may(scope?.replace(/:read$/, ":read_credentials"))) {
    return refuse(403, "insufficient_scope", `This key needs the scope ${scope}`);
  }
  const chunks = await incoming.toArray();
  const body = chunks.length ? JSON.parse(Buffer.concat(chunks).toString()) : {};
  const name = path.exec(url.pathname)[1];
  handle({ nango, may, query: url.searchParams, body, tell, refuse }, name && decodeURIComponent(name));
}

const described = ({ unique_key, provider }) => ({
  unique_key,
  provider,
  display_name: unique_key,
  logo: "",
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
});

function integrations({ nango, query, tell, refuse }) {
  if (query.size > 0) return refuse(400, "invalid_query_params");
  tell(200, { data: nango.integrations.map(described) });
}

function integration({ nango, may, query, tell, refuse }, key) {
  const found = nango.integrations.find((it) => it.unique_key === key);
  if (found === undefined) return refuse(404, "not_found");
  const data = described(found);
  if (
    query.getAll("include").includes("credentials") &&
    may("environment:integrations:read_credentials")
  ) {
    const type = nango.templates[found.provider]?.auth_mode;
    const { client_id, client_secret, scopes } = found;
    // Only apps have such credentials.
    data.credentials = ["OAUTH2", "OAUTH1"].includes(type)
      ? { type, client_id, client_secret, scopes: scopes ?? null }
      : null;
  }
  tell(200, { data });
}

function providers({ nango, tell }) {
  tell(200, { data: Object.entries(nango.templates).map(([name, it]) => ({ name, ...it })) });
}

function provider({ nango, tell, refuse }, name) {
  const found = nango.templates[name];
  if (found === undefined) return refuse(404, "unknown_provider");
  tell(200, { data: { name, ...found } });
}

function connections({ nango, query, tell }) {
  const of = query.get("integrationId")?.split(",");
  const limit = Number(query.get("limit") ?? 1000);
  const from = Number(query.get("page") ?? 0) * limit;
  const all = nango.connections.filter((it) => !of || of.includes(it.provider_config_key));
  const told = all.slice(from, from + limit);
  tell(200, {
    connections: told.map(({ connection_id, provider_config_key, metadata }) => ({
      connection_id,
      provider_config_key,
      metadata,
    })),
  });
}

function connection({ nango, query, tell, refuse }, id) {
  const found = nango.connections.find(
    (it) => it.connection_id === id && it.provider_config_key === query.get("provider_config_key"),
  );
  if (found === undefined) return refuse(404, "not_found");
  tell(200, found);
}

function metadata({ nango, body, tell, refuse }) {
  told(nango, body, tell, refuse, 201, () => body.metadata);
}

function update({ nango, body, tell, refuse }) {
  told(nango, body, tell, refuse, 200, (known) => ({ ...known, ...body.metadata }));
}

/** Gives metadata to one connection, or to several. */
function told(nango, body, tell, refuse, status, merged) {
  const found = [body.connection_id]
    .flat()
    .map((id) =>
      nango.connections.find(
        (it) => it.connection_id === id && it.provider_config_key === body.provider_config_key,
      ),
    );
  if (found.includes(undefined)) return refuse(404, "unknown_connection");
  for (const connection of found) connection.metadata = merged(connection.metadata);
  tell(status, body);
}

function session({ nango, body, tell, refuse }) {
  if (nango.capped) return refuse(400, "resource_capped");
  if (!body.tags && !body.end_user) return refuse(400, "invalid_body");
  const known = (key) => nango.integrations.some((it) => it.unique_key === key);
  const named = [
    ...(body.allowed_integrations ?? []),
    ...Object.keys(body.integrations_config_defaults ?? {}),
  ];
  if (!named.every(known)) return refuse(400, "invalid_body");
  const token = `nango_connect_session_${randomBytes(32).toString("hex")}`;
  nango.sessions.set(token, {
    allowed: body.allowed_integrations,
    defaults: body.integrations_config_defaults ?? {},
  });
  const expires_at = new Date(Date.now() + 30 * 60_000).toISOString();
  tell(201, { data: { token, connect_link: `http://connect.localhost/?session_token=${token}`, expires_at } });
}
