// A person with a browser: an app's page opens Nango's connect URL in a popup, the person logs in
// and consents at the provider, and the app's page waits for the message.
//
// Arguments: the browser, a folder for its profile, the edge's certificate. It says `{"port"}`,
// the port of the app's page; then each line that it hears is one flow:
//
//   {"connect": URL}               answered by {"message", "origin", "hops"}
//   {"nango": {…}, "auth": [...]}  Nango's own frontend SDK, made with `nango`, starts it with these
//                                  arguments: {"connection", "hops"}, or {"refused": type}
//
// What goes wrong on the way is told as {"failed", "at", "page"}.

import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { launch } from "./chromium.mjs";
import { heard, listen, say } from "./lines.mjs";

const [executablePath, profile, certificate] = process.argv.slice(2);

const sdk = join(import.meta.dirname, "node_modules/@nangohq/frontend/dist");
const app = createServer((request, answer) => {
  const module = /^\/sdk\/(\w+\.js)$/.exec(request.url)?.[1];
  if (module) {
    answer.writeHead(200, { "Content-Type": "text/javascript" }).end(readFileSync(join(sdk, module)));
  } else {
    answer.writeHead(200, { "Content-Type": "text/html" }).end("<title>app</title><h1>An app</h1>");
  }
});
const port = await listen(app);

// The browser believes this one key, whoever signed it; all else it checks as ever.
const key = new X509Certificate(readFileSync(certificate)).publicKey;
const spki = createHash("sha256").update(key.export({ type: "spki", format: "der" }));
const browser = await launch(
  executablePath,
  profile,
  // The provider's pages ask for a font from the Internet.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE *.localhost",
  `--ignore-certificate-errors-spki-list=${spki.digest("base64")}`,
);

/** Opens the window by hand, and waits for what it posts. */
const byHand = (page, connect) =>
  page.evaluate(
    (url) =>
      new Promise((resolve) => {
        window.addEventListener("message", ({ data, origin }) => resolve({ message: data, origin }));
        window.open(url, "nango", "popup,width=500,height=600");
      }),
    connect,
  );

/** Lets the SDK do both. */
const bySdk = (page, nango, auth) =>
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

async function flow({ connect, nango, auth }) {
  const page = await browser.newPage();
  await page.goto(`http://app.localhost:${port}/`);
  const hops = [];
  browser.on("response", (response) => {
    if (response.request().isNavigationRequest()) hops.push([response.status(), response.url()]);
  });
  const opened = page.waitForEvent("popup");
  const ended = connect ? byHand(page, connect) : bySdk(page, nango, auth);
  // When the flow fails, the page closes on it; that is told below.
  ended.catch(() => {});
  const popup = await opened;
  try {
    // A flow that is refused ends before anybody can sign in.
    await Promise.race([signIn(popup), ended]);
    const told = await Promise.race([
      ended,
      new Promise((_, late) => setTimeout(late, 15_000, new Error("nothing for the opener"))),
    ]);
    return { ...told, hops };
  } catch (error) {
    return { failed: error.message, at: popup.url(), page: await popup.content(), hops };
  } finally {
    await browser.clearCookies();
    await popup.close();
    await page.close();
  }
}

heard(
  async (told) => say(await flow(told)),
  () => browser.close(),
);
say({ port });
