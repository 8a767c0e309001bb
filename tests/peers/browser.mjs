// A user with a browser: the page of an app opens Nango's connect URL in a popup, the user logs in
// and consents at the provider, and the page waits for the message.
//
// Arguments: the browser, a directory for its profile, the certificate of the server. Sends
// `{"port"}`, the port of the page; then each line that it receives is one flow:
//
//   {"connect": URL}               the response is {"message", "origin", "hops"}
//   {"nango": {…}, "auth": [...]}  Nango's frontend SDK, constructed with `nango`, starts it with
//                                  these arguments: {"connection", "hops"}, or {"refused": type}
//
// With `"pause": true` the user waits at the login page: `{"paused"}` is sent, and the flow continues
// after `{"continue": true}`. An error is sent as {"failed", "at", "page"}.

import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { launch } from "./chromium.mjs";
import { listen, onMessage, send } from "./lines.mjs";

const [executablePath, profile, certificate] = process.argv.slice(2);

const sdk = join(import.meta.dirname, "node_modules/@nangohq/frontend/dist");
const app = createServer((request, response) => {
  const module = /^\/sdk\/(\w+\.js)$/.exec(request.url)?.[1];
  if (module) {
    response.writeHead(200, { "Content-Type": "text/javascript" }).end(readFileSync(join(sdk, module)));
  } else {
    response.writeHead(200, { "Content-Type": "text/html" }).end("<title>app</title><h1>An app</h1>");
  }
});
const port = await listen(app);

// The browser accepts this key without a known CA, and verifies everything else.
const key = new X509Certificate(readFileSync(certificate)).publicKey;
const spki = createHash("sha256").update(key.export({ type: "spki", format: "der" }));
const browser = await launch(
  executablePath,
  profile,
  // The pages of the provider request a font from the Internet.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE *.localhost",
  `--ignore-certificate-errors-spki-list=${spki.digest("base64")}`,
);

/** Opens the popup, and waits for its message. */
const withoutSdk = (page, connect) =>
  page.evaluate(
    (url) =>
      new Promise((resolve) => {
        window.addEventListener("message", ({ data, origin }) => resolve({ message: data, origin }));
        window.open(url, "nango", "popup,width=500,height=600");
      }),
    connect,
  );

/** The SDK does both. */
const withSdk = (page, nango, auth) =>
  page.evaluate(
    async ([nango, auth]) => {
      const { default: Nango } = await import("/sdk/index.js");
      try {
        return { connection: await new Nango(nango).auth(...auth) };
      } catch (error) {
        return { refused: error.type ?? error.message };
      }
    },
    [nango, auth],
  );

async function signIn(popup) {
  await popup.getByPlaceholder("Enter any login").fill("person");
  await popup.getByPlaceholder("and password").fill("password");
  await popup.getByRole("button", { name: "Sign-in" }).click();
  await popup.getByRole("button", { name: "Continue" }).click();
}

/** Continues the flow that is paused. */
let resume;

async function flow({ connect, nango, auth, pause }) {
  const page = await browser.newPage();
  await page.goto(`http://app.localhost:${port}/`);
  const hops = [];
  browser.on("response", (response) => {
    if (response.request().isNavigationRequest()) hops.push([response.status(), response.url()]);
  });
  const opened = page.waitForEvent("popup");
  const ended = connect ? withoutSdk(page, connect) : withSdk(page, nango, auth);
  // If the flow fails, closing the page rejects this promise; the error is reported below.
  ended.catch(() => {});
  const popup = await opened;
  try {
    if (pause) {
      await popup.getByPlaceholder("Enter any login").waitFor();
      send({ paused: popup.url() });
      await new Promise((resolve) => {
        resume = resolve;
      });
    }
    // A rejected flow ends before the login.
    await Promise.race([signIn(popup), ended]);
    const outcome = await Promise.race([
      ended,
      new Promise((_, late) => setTimeout(late, 15_000, new Error("no message for the opener"))),
    ]);
    return { ...outcome, hops };
  } catch (error) {
    return { failed: error.message, at: popup.url(), page: await popup.content(), hops };
  } finally {
    await browser.clearCookies();
    await popup.close();
    await page.close();
  }
}

onMessage(
  async (message) => (message.continue ? resume() : send(await flow(message))),
  () => browser.close(),
);
send({ port });
