// An API provider: a certified OpenID provider with its own login and consent pages. Its one
// client may be sent back to the callback that the first argument names.
//
// Like Zoho and others, it sends a parameter of its own along, in bytes that an encoder of ours
// would not choose. It says `{"port"}`, and `{"sent": {…}}` for each answer that leaves for the
// callback: the raw query of a redirect, or the fields of a form.

import { createServer } from "node:http";
import Provider from "oidc-provider";
import { heard, listen, say } from "./lines.mjs";

const [callback] = process.argv.slice(2);
const extra = "accounts-server=https:%2f%2fAccounts.example%2Feu&note=it%27s+(raw)~%7e";

const server = createServer();
const port = await listen(server);
const provider = new Provider(`http://provider.localhost:${port}`, {
  clients: [
    {
      client_id: "nango",
      client_secret: "a-secret-of-the-test",
      redirect_uris: [callback],
      response_types: ["code"],
      grant_types: ["authorization_code"],
    },
  ],
  cookies: { keys: ["of-the-test"] },
});

provider.use(async (context, next) => {
  await next();
  const location = context.response.get("location") ?? "";
  if (location.startsWith(callback)) {
    context.set("location", `${location}&${extra}`);
    say({ sent: { query: `${new URL(location).search.slice(1)}&${extra}` } });
  } else if (typeof context.body === "string" && context.body.includes(`action="${callback}"`)) {
    const more = [...new URLSearchParams(extra)].map(
      ([name, value]) => `<input type="hidden" name="${name}" value="${value}"/>`,
    );
    context.body = context.body.replace("</form>", `${more.join("")}</form>`);
    const fields = context.body.matchAll(/name="([^"]*)" value="([^"]*)"/g);
    say({ sent: { fields: [...fields].map(([, name, value]) => [name, value]) } });
  }
});

server.on("request", provider.callback());
heard();
say({ port });
