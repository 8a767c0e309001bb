// An API provider: a certified OpenID provider with its own login and consent pages. Its one
// client has the callbacks of the arguments registered, and others can register (RFC 7591).
//
// Like Zoho and others, it adds its own parameter, encoded as a usual encoder would not do it. Sends
// `{"port"}`, and `{"sent": {…}}` for each response to the callback: the raw query of a redirect, or
// the fields of a form.

import { createServer } from "node:http";
import Provider from "oidc-provider";
import { listen, onMessage, send } from "./lines.mjs";

const callbacks = process.argv.slice(2);
const extra = "accounts-server=https:%2f%2fAccounts.example%2Feu&note=it%27s+(raw)~%7e";

const server = createServer();
const port = await listen(server);
const provider = new Provider(`http://provider.localhost:${port}`, {
  clients: [
    {
      client_id: "nango",
      client_secret: "a-secret-of-the-test",
      redirect_uris: callbacks,
      response_types: ["code"],
      grant_types: ["authorization_code"],
    },
  ],
  cookies: { keys: ["of-the-test"] },
  features: { registration: { enabled: true } },
});

const hasForm = (page) => callbacks.some((it) => page.includes(`action="${it}"`));

provider.use(async (context, next) => {
  await next();
  const location = context.response.get("location") ?? "";
  if (callbacks.some((it) => location.startsWith(it))) {
    context.set("location", `${location}&${extra}`);
    send({ sent: { query: `${new URL(location).search.slice(1)}&${extra}` } });
  } else if (typeof context.body === "string" && hasForm(context.body)) {
    const more = [...new URLSearchParams(extra)].map(
      ([name, value]) => `<input type="hidden" name="${name}" value="${value}"/>`,
    );
    context.body = context.body.replace("</form>", `${more.join("")}</form>`);
    const fields = context.body.matchAll(/name="([^"]*)" value="([^"]*)"/g);
    send({ sent: { fields: [...fields].map(([, name, value]) => [name, value]) } });
  }
});

server.on("request", provider.callback());
onMessage();
send({ port });
