// A flow at Nango: how it begins at `/oauth/connect/:integration`, and how it ends at the callback.

import { createHash, createHmac, randomBytes, randomUUID } from "node:crypto";
import { request } from "node:http";
import { send } from "../lines.mjs";

/** Sends the browser to the provider, or says why not: 401 in JSON, 400 as a page. */
export function begin(nango, key, url, answer) {
  const query = url.searchParams;
  const socket = nango.sockets.get(query.get("ws_client_id"));
  const unauthorized = (code) =>
    answer
      .writeHead(401, { "Content-Type": "application/json" })
      .end(JSON.stringify({ error: { code, message: code } }));
  const refuse = (type) => {
    socket?.send(JSON.stringify({ message_type: "error", error_type: type, error_desc: type }));
    page(answer, 400, `<p>${type}</p>`);
  };

  const token = query.get("connect_session_token");
  let given;
  if (token !== null) {
    const session = nango.sessions.get(token);
    if (session === undefined) return unauthorized("unknown_connect_session_token");
    if (query.has("connection_id")) return refuse("session_token_and_connection_id");
    if (session.allowed && !session.allowed.includes(key)) return refuse("integration_not_allowed");
    const own = session.defaults[key] ?? {};
    given = {
      connection: randomUUID(),
      params: own.connection_config ?? {},
      authorization: own.authorization_params ?? {},
      scope: own.user_scopes,
    };
  } else {
    if (query.get("public_key") !== nango.public_key) return unauthorized("unknown_public_key");
    const connection = query.get("connection_id");
    if (nango.hmac_key) {
      if (!query.has("hmac")) return refuse("missing_hmac");
      const message = connection === null ? key : `${key}:${connection}`;
      const digest = createHmac("sha256", nango.hmac_key).update(message).digest("hex");
      if (query.get("hmac") !== digest) return refuse("invalid_hmac");
    }
    given = {
      connection: connection ?? randomUUID(),
      params: inside(query, "params"),
      authorization: inside(query, "authorization_params"),
      scope: query.get("user_scope"),
    };
  }

  const integration = nango.integrations.find((it) => it.unique_key === key);
  if (nango.refused?.includes(key)) return refuse("refused");
  if (integration === undefined) return refuse("unknown_provider_config");
  const template = nango.templates[integration.provider];
  if (!["OAUTH2", "OAUTH1", "APP"].includes(template?.auth_mode)) return refuse("unknown_auth_mode");
  let lacks = false;
  const filled = template.authorization_url.replace(
    /\$\{connectionConfig\.([^}]+)\}/g,
    (_, name) => {
      lacks ||= given.params[name] === undefined;
      return given.params[name];
    },
  );
  if (lacks) return refuse("missing_connection_config");

  const flow = randomUUID();
  const secret = randomUUID();
  const verifier = randomBytes(32).toString("base64url");
  // The callback of the start is the flow's to its end, whatever is saved meanwhile.
  const { callback } = nango;
  nango.flows.set(flow, { ...given, integration, template, callback, secret, verifier, socket });
  const cookie = `oauth2-${flow}=${secret}; Path=/oauth/callback; HttpOnly; SameSite=Lax`;
  const lead = (to) => answer.writeHead(302, { Location: to, "Set-Cookie": cookie }).end();
  if (template.auth_mode === "OAUTH1") return lead(`${filled}?oauth_token=${randomUUID()}`);

  const scopes = (given.scope || integration.scopes || "").split(",").filter(Boolean);
  const parameters = new URLSearchParams({
    client_id: integration.client_id,
    [template.redirect_parameter ?? "redirect_uri"]: callback,
    response_type: "code",
    ...(scopes.length ? { scope: scopes.join(template.scope_separator ?? " ") } : {}),
    state: flow,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    ...template.authorization_params,
    ...given.authorization,
  });
  lead(`${filled}${filled.includes("?") ? "&" : "?"}${parameters}`);
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

/** Spends the code, keeps the connection, tells the page that opened the window. */
export async function finish(nango, incoming, url, answer) {
  const cookies = incoming.headers.cookie ?? "";
  const outcome =
    incoming.method === "GET"
      ? await callback(nango, url.searchParams, cookies)
      : { status: 415, error: "invalid_content_type" };
  const query = incoming.url.includes("?") ? incoming.url.slice(incoming.url.indexOf("?") + 1) : null;
  const { flow, ...told } = outcome;
  send({ arrived: { method: incoming.method, query, cookie: /(^|; )oauth2-/.test(cookies), ...told } });
  if (outcome.error) {
    flow?.socket?.send(
      JSON.stringify({ message_type: "error", error_type: outcome.error, error_desc: outcome.error }),
    );
    const values = JSON.stringify(Object.fromEntries(url.searchParams));
    return page(answer, outcome.status, `<p>${escape(outcome.error)}</p><code>${escape(values)}</code>`);
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
  page(answer, 200, `<script>${script}</script>`);
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
    // Parameters that come twice are lists, and only texts are kept.
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

/** Spends the code at the provider (RFC 6749 §4.1.3). */
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
    // By address: names below `localhost` are the browser's to resolve, not every machine's.
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

/** The page that ends every flow. */
function page(answer, status, text) {
  answer.writeHead(status, { "Content-Type": "text/html" });
  answer.end(
    `<!-- Nango OAuth flow callback --><html><head><title>Authorization callback</title></head>` +
      `<body>${text}</body></html>`,
  );
}

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
