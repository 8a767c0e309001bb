// Environments, and the calls of the API that read and change them with a key of the account.

/** Method, path, required scope, and handler. */
export const CALLS = [
  ["GET", /^\/environments$/, "account:environments:list", list],
  ["GET", /^\/environments\/([^/]+)$/, "account:environments:read", read],
  ["PATCH", /^\/environments\/([^/]+)$/, "account:environments:update", update],
];

/** The environments of the account. */
export const environments = (nango) => nango.environments ?? [nango];

/** Environments with settings of their own; the others are those of the server. */
export const separate = (nango, all) =>
  all.map((own) =>
    Object.assign(Object.create(nango), { keys: {}, integrations: [], connections: [], public_key: undefined }, own),
  );

const described = ({ uuid, name, is_production }) => ({
  id: Number.parseInt(uuid.slice(0, 8), 16),
  uuid,
  name,
  is_production,
});

function list({ nango, query, respond }) {
  const name = query.get("name");
  const found = environments(nango).filter((it) => name === null || it.name === name);
  respond(200, { data: found.map(described) });
}

function read({ nango, respond, fail }, uuid) {
  const found = environments(nango).find((it) => it.uuid === uuid);
  if (found === undefined) return fail(404, "not_found");
  respond(200, {
    data: {
      ...described(found),
      callback_url: found.callback,
      hmac_enabled: Boolean(found.hmac_key),
      slack_notifications: false,
      otlp_endpoint: null,
    },
  });
}

function update({ nango, body, respond, fail, lose }, uuid) {
  const found = environments(nango).find((it) => it.uuid === uuid);
  if (found === undefined) return fail(404, "not_found");
  const { callback_url } = body;
  if (callback_url !== undefined) {
    if (!URL.canParse(callback_url)) return fail(400, "invalid_body");
    found.callback = callback_url;
  }
  nango.patches.push({ name: found.name, body });
  if (nango.lost_responses > 0) {
    nango.lost_responses -= 1;
    return lose();
  }
  respond(200, { success: true });
}
