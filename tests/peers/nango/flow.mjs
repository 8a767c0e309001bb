// Flows: starts at `/oauth/connect/:integration`, ends at the callback.

import { createHash, createHmac, randomBytes, randomUUID } from "node:crypto";
import { request } from "node:http";
import { send } from "../lines.mjs";

/** Redirects the browser to the provider, or reports an error: 401 with JSON, 400 with a page. */
export function start(nango, key, url, response) {
  const query = url.searchParams;
  const socket = nango.sockets.get(query.get("ws_client_id"));
  const unauthorized = (code) =>
    response
      .writeHead(401, { "Content-Type": "application/json" })
      .end(JSON.stringify({ error: { code, message: code } }));
  const fail = (type) => {
    socket?.send(JSON.stringify({ message_type: "error", error_type: type, error_desc: type }));
    page(response, 400, `<p>${type}</p>`);
  };

  const token = query.get("connect_session_token");
  let options;
  if (token !== null) {
    const session = nango.sessions.get(token);
    if (session === undefined) return unauthorized("unknown_connect_session_token");
    if (query.has("connection_id")) return fail("session_token_and_connection_id");
    if (session.allowed && !session.allowed.includes(key)) return fail("integration_not_allowed");
    const own = session.defaults[key] ?? {};
    options = {
      connection: randomUUID(),
      params: own.connection_config ?? {},
      authorization: own.authorization_params ?? {},
      scope: own.user_scopes,
    };
  } else {
    if (query.get("public_key") !== nango.public_key) return unauthorized("unknown_public_key");
    const connection = query.get("connection_id");
    if (nango.hmac_key) {
      if (!query.has("hmac")) return fail("missing_hmac");
      const message = connection === null ? key : `${key}:${connection}`;
      const digest = createHmac("sha256", nango.hmac_key).update(message).digest("hex");
      if (query.get("hmac") !== digest) return fail("invalid_hmac");
    }
    options = {
      connection: connection ?? randomUUID(),
      params: inside(query, "params"),
      authorization: inside(query, "authorization_params"),
      scope: query.get("user_scope"),
    };
  }

  const integration = nango.integrations.find((it) => it.unique_key === key);
  if (nango.failing?.includes(key)) return fail("failing");
  if (integration === undefined) return fail("unknown_provider_config");
  const template = nango.templates[integration.provider];
  if (!["OAUTH2", "OAUTH1", "APP"].includes(template?.auth_mode)) return fail("unknown_auth_mode");
  let isIncomplete = false;
  const filled = template.authorization_url.replace(
    /\$\{connectionConfig\.([^}]+)\}/g,
    (_, name) => {
      isIncomplete ||= options.params[name] === undefined;
      return options.params[name];
    },
  );
  if (isIncomplete) return fail("missing_connection_config");

  const flow = randomUUID();
  const secret = randomUUID();
  const verifier = randomBytes(32).toString("base64url");
  // The flow keeps the callback with which it started, even if the settings change.
  const { callback } = nango;
  nango.flows.set(flow, { ...options, integration, template, callback, secret, verifier, socket });
  const cookie = `oauth2-${flow}=${secret}; Path=/oauth/callback; HttpOnly; SameSite=Lax`;
  const redirect = (to) => response.writeHead(302, { Location: to, "Set-Cookie": cookie }).end();
  if (template.auth_mode === "OAUTH1") return redirect(`${filled}?oauth_token=${randomUUID()}`);

  const scopes = (options.scope || integration.scopes || "").split(",").filter(Boolean);
  const parameters = new URLSearchParams({
    client_id: integration.client_id,
    [template.redirect_parameter ?? "redirect_uri"]: callback,
    response_type: "code",
    ...(scopes.length ? { scope: scopes.join(template.scope_separator ?? " ") } : {}),
    state: flow,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    ...template.authorization_params,
    ...options.authorization,
  });
  redirect(`${filled}${filled.includes("?") ? "&" : "?"}${parameters}`);
}

/** `name[inner]=value` as an object. */
function inside(query, name) {
  const found = {};
  for (const [key, value] of query) {
    const inner = new RegExp(`^${name}\\[(.+)\\]$`).exec(key);
    if (inner) found[inner[1]] = value;
  }
  return found;
}

/** Exchanges the code, saves the connection, and notifies the page that opened the window. */
export async function finish(nango, incoming, url, response) {
  const cookies = incoming.headers.cookie ?? "";
  const outcome =
    incoming.method === "GET"
      ? await callback(nango, url.searchParams, cookies)
      : { status: 415, error: "invalid_content_type" };
  const query = incoming.url.includes("?") ? incoming.url.slice(incoming.url.indexOf("?") + 1) : null;
  const { flow, ...result } = outcome;
  send({ callback: { method: incoming.method, query, cookie: /(^|; )oauth2-/.test(cookies), ...result } });
  if (outcome.error) {
    flow?.socket?.send(
      JSON.stringify({ message_type: "error", error_type: outcome.error, error_desc: outcome.error }),
    );
    const values = JSON.stringify(Object.fromEntries(url.searchParams));
    return page(response, outcome.status, `<p>${escape(outcome.error)}</p><code>${escape(values)}</code>`);
  }
  flow.socket?.send(
    JSON.stringify({
      message_type: "success",
      provider_config_key: outcome.integration,
      connection_id: flow.connection,
      is_pending: false,
    }),
  );
  const message = {
    eventType: "AUTHORIZATION_SUCCESS",
    data: { providerConfigKey: outcome.integration },
  };
  const script = `window.opener.postMessage(${JSON.stringify(message)}, "*");`;
  page(response, 200, `<script>${script}</script>`);
}

async function callback(nango, parameters, cookies) {
  const state = parameters.get("state");
  if (state === null) return { status: 400, error: "No state found in callback" };
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(state)) {
    return { status: 400, error: "invalid_oauth_state" };
  }
  const flow = nango.flows.get(state);
  if (flow === undefined) {
    return { status: 400, error: `No session found for state: "${state}"` };
  }
  nango.flows.delete(state);
  if (!cookies.split("; ").includes(`oauth2-${state}=${flow.secret}`)) {
    return { status: 400, error: "state_cookie_err", flow };
  }
  const code = parameters.get("code");
  if (code === null) return { status: 400, error: parameters.get("error") ?? "no code", flow };
  const token = await exchange(flow, code);
  if (token.access_token === undefined) return { status: 400, error: JSON.stringify(token), flow };
  const picked = (flow.template.redirect_uri_metadata ?? [])
    .map((name) => [name, parameters.getAll(name)])
    // Repeated parameters are lists, and only strings are saved.
    .filter(([, values]) => values.length === 1)
    .map(([name, [value]]) => [name, value]);
  nango.connections.push({
    id: nango.connections.length + 1,
    connection_id: flow.connection,
    provider_config_key: flow.integration.unique_key,
    provider: flow.integration.provider,
    connection_config: { ...flow.params, ...Object.fromEntries(picked) },
    metadata: null,
    credentials: { type: "OAUTH2", access_token: token.access_token, raw: {} },
  });
  return { status: 200, integration: flow.integration.unique_key, flow };
}

/** Exchanges the code at the provider (RFC 6749 §4.1.3). */
function exchange(flow, code) {
  const { client_id, client_secret } = flow.integration;
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code,
    redirect_uri: flow.callback,
    code_verifier: flow.verifier,
  }).toString();
  const { host, port, pathname } = new URL(flow.template.token_url);
  return new Promise((resolve, reject) => {
    // By address: not every machine resolves subdomains of `localhost`, as browsers do.
    const outgoing = request({
      host: "127.0.0.1",
      port,
      path: pathname,
      method: "POST",
      headers: {
        Host: host,
        Authorization: `Basic ${btoa(`${client_id}:${client_secret}`)}`,
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

/** The final page of a flow. */
function page(response, status, text) {
  response.writeHead(status, { "Content-Type": "text/html" });
  response.end(
    `<!-- Nango OAuth flow callback --><html><head><title>Authorization callback</title></head>` +
      `<body>${text}</body></html>`,
  );
}

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
