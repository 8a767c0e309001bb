// Flows: starts at `/oauth/connect/:integration`, ends at the callback.

import { createHash, createHmac, randomBytes, randomUUID } from "node:crypto";
import { request } from "node:http";
import { send } from "../lines.mjs";
import { environments } from "./environments.mjs";

/** The client metadata document of an integration that follows the setting. */
export function document(nango, url, response) {
  const [, , , uuid] = url.pathname.split("/");
  const environment = environments(nango).find((it) => it.uuid === uuid);
  if (environment === undefined) return response.writeHead(404).end();
  response
    .writeHead(200, { "Content-Type": "application/json", "Cache-Control": "max-age=300" })
    .end(JSON.stringify({ redirect_uris: [environment.callback] }));
}

/** Redirects the browser to the provider, or reports an error: 401 with JSON, 400 with a page. */
export async function start(nango, key, url, response) {
  const query = url.searchParams;
  const socket = nango.sockets.get(query.get("ws_client_id"));
  const unauthorized = (code) =>
    response
      .writeHead(401, { "Content-Type": "application/json" })
      .end(JSON.stringify({ error: { code, message: code } }));
  const refuse = (code) =>
    response
      .writeHead(400, { "Content-Type": "application/json" })
      .end(JSON.stringify({ error: { code, message: code } }));
  const fail = (type) => {
    socket?.send(JSON.stringify({ message_type: "error", error_type: type, error_desc: type }));
    page(response, 400, `<p>${escape(type)}</p>`);
  };

  const token = query.get("connect_session_token");
  let options;
  let environment;
  if (token !== null) {
    const session = nango.sessions.get(token);
    if (session === undefined) return unauthorized("unknown_connect_session_token");
    if (query.has("connection_id")) return refuse("session_token_and_connection_id");
    if (session.allowed && !session.allowed.includes(key)) return refuse("integration_not_allowed");
    environment = session.environment;
    const own = session.defaults[key] ?? {};
    options = {
      connection: randomUUID(),
      params: own.connection_config ?? {},
      authorization: own.authorization_params ?? {},
      scope: own.user_scopes,
    };
  } else {
    // Accounts from after 2025-08-25.
    if (nango.new_account) return unauthorized("deprecated_authentication");
    environment = environments(nango).find((it) => it.public_key === query.get("public_key"));
    if (environment === undefined) return unauthorized("unknown_public_key");
    const connection = query.get("connection_id");
    if (environment.hmac_key) {
      if (!query.has("hmac")) return fail("missing_hmac");
      const message = connection === null ? key : `${key}:${connection}`;
      const digest = createHmac("sha256", environment.hmac_key).update(message).digest("hex");
      if (query.get("hmac") !== digest) return fail("invalid_hmac");
    }
    options = {
      connection: connection ?? randomUUID(),
      params: inside(query, "params"),
      authorization: inside(query, "authorization_params"),
      scope: query.get("user_scope"),
    };
  }

  const integration = environment.integrations.find((it) => it.unique_key === key);
  if (nango.failing?.includes(key)) return fail("failing");
  if (integration === undefined) return fail("unknown_provider_config");
  const template = nango.templates[integration.provider];
  const mode = template?.auth_mode;
  if (!["OAUTH2", "OAUTH1", "APP", "CUSTOM", "MCP_OAUTH2", "MCP_OAUTH2_GENERIC"].includes(mode)) {
    return fail(`Auth mode ${mode} not supported.`);
  }
  if (mode === "OAUTH2" && !integration.client_id) {
    return fail(`Provider Config "${key}" is missing client ID, secret and/or scopes.`);
  }
  // `A || B`: the first that can be filled.
  const missing = [];
  const fill = (text) => {
    let isComplete = true;
    const filled = text.trim().replace(/\$\{([^}]+)\}/g, (_, inner) => {
      const name = inner.replace("connectionConfig.", "");
      if (inner === "random") return randomUUID();
      if (options.params[name] === undefined) {
        isComplete = false;
        missing.push(name);
      }
      return options.params[name];
    });
    return isComplete ? filled : undefined;
  };
  const filled = template.authorization_url
    .split("||")
    .map(fill)
    .find((url) => url !== undefined);
  if (filled === undefined) return fail(`Missing Connection Config param(s) ${missing.join(", ")}`);

  const flow = randomUUID();
  const verifier = randomBytes(32).toString("base64url");
  // The flow keeps the callback with which it started, even if the settings change.
  const { callback } = environment;
  const { client_id: own, client_secret } = integration;
  const started = { ...options, environment, integration, template, callback, verifier, socket };
  nango.flows.set(flow, Object.assign(started, { client_id: own, client_secret }));
  const cookie = `oauth2-${flow}=1; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax`;
  const redirect = (location) => response.writeHead(302, { Location: location, "Set-Cookie": cookie }).end();
  if (template.auth_mode === "OAUTH1") return redirect(`${filled}?oauth_token=${randomUUID()}`);

  if (mode === "CUSTOM" || mode === "APP") return redirect(`${filled}?state=${flow}`);

  const scopes = (options.params.oauth_scopes_override || integration.scopes || "").split(",").filter(Boolean);
  let client_id = own;
  if (mode === "MCP_OAUTH2_GENERIC") {
    // Each start registers a client at the provider.
    nango.registered = (nango.registered ?? 0) + 1;
    client_id = `registered-${nango.registered}`;
    if (template.registration_url) {
      const registered = await register(template.registration_url, callback);
      Object.assign(started, registered);
      ({ client_id } = registered);
    }
  } else if (template.client_registration === "cimd") {
    client_id = `${nango.origin}/oauth/client-metadata/${environment.uuid}/${key}`;
  }
  const parameters = new URLSearchParams({
    client_id,
    [template.redirect_parameter ?? "redirect_uri"]: callback,
    response_type: "code",
    ...(scopes.length ? { scope: scopes.join(template.scope_separator ?? " ") } : {}),
    state: flow,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    ...template.authorization_params,
    // Only this template sends it, and it never changes `scope`.
    ...(integration.provider === "slack" && options.scope ? { user_scope: options.scope } : {}),
    ...options.authorization,
  });
  let to = `${filled}${filled.includes("?") ? "&" : "?"}${parameters}`;
  if (template.authorization_url_fragment) {
    const { origin, pathname, search } = new URL(to);
    to = `${origin}${pathname}#${template.authorization_url_fragment}${search}`;
  }
  for (const [old, replacement] of Object.entries(template.authorization_url_replacements ?? {})) {
    to = to.replace(old, replacement);
  }
  redirect(to);
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
    eventType: "nango_oauth_callback_success",
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
  if (!cookies.split("; ").includes(`oauth2-${state}=1`)) {
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
  const { connections } = flow.environment;
  connections.push({
    id: connections.length + 1,
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
  const { client_id, client_secret, template, environment } = flow;
  // Generic MCP flows read the callback again; when it changed, the provider refuses the exchange.
  const isRead = template.auth_mode === "MCP_OAUTH2_GENERIC";
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code,
    redirect_uri: isRead ? environment.callback : flow.callback,
    code_verifier: flow.verifier,
  }).toString();
  return post(template.token_url, body, {
    Authorization: `Basic ${btoa(`${client_id}:${client_secret}`)}`,
    "Content-Type": "application/x-www-form-urlencoded",
  });
}

/** Registers a client with this callback at the provider (RFC 7591 §3.1). */
function register(url, callback) {
  const body = JSON.stringify({ redirect_uris: [callback], client_name: "Nango" });
  return post(url, body, { "Content-Type": "application/json" });
}

/** Sends a request to a provider; resolves to the JSON of its response. */
function post(url, body, headers) {
  const { host, port, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    // By address: not every machine resolves subdomains of `localhost`, as browsers do.
    const outgoing = request({
      host: "127.0.0.1",
      port,
      path: pathname,
      method: "POST",
      headers: { Host: host, "Content-Length": body.length, ...headers },
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
