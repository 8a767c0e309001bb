// A person with a browser: an app's page opens Nango's connect URL in a popup, the person logs in
// and consents at the provider, and the app's page waits for the message.
//
// Arguments: the browser, a folder for its profile, the edge's certificate. It says `{"port"}`,
// the port of the app's page; then each `{"connect": URL}` that it hears is one flow, which it
// answers by `{"message", "origin", "hops"}`, or by `{"failed", "at", "page"}`.

import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { launch } from "./chromium.mjs";
import { heard, listen, say } from "./lines.mjs";

const [executablePath, profile, certificate] = process.argv.slice(2);

const app = createServer((request, answer) => {
  answer.writeHead(200, { "Content-Type": "text/html" }).end("<title>app</title><h1>An app</h1>");
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

async function flow(connect) {
  const page = await browser.newPage();
  await page.goto(`http://app.localhost:${port}/`);
  const hops = [];
  browser.on("response", (response) => {
    if (response.request().isNavigationRequest()) hops.push([response.status(), response.url()]);
  });
  const opened = page.waitForEvent("popup");
  const message = page.evaluate(
    (url) =>
      new Promise((resolve) => {
        window.addEventListener("message", ({ data, origin }) => resolve({ data, origin }));
        window.open(url, "nango", "popup,width=500,height=600");
      }),
    connect,
  );
  // When the flow fails, the page closes on it; that is told below.
  message.catch(() => {});
  const popup = await opened;
  try {
    await popup.getByPlaceholder("Enter any login").fill("person");
    await popup.getByPlaceholder("and password").fill("password");
    await popup.getByRole("button", { name: "Sign-in" }).click();
    await popup.getByRole("button", { name: "Continue" }).click();
    const { data, origin } = await Promise.race([
      message,
      new Promise((_, late) => setTimeout(late, 15_000, new Error("no message for the opener"))),
    ]);
    return { message: data, origin, hops };
  } catch (error) {
    return { failed: error.message, at: popup.url(), page: await popup.content(), hops };
  } finally {
    await browser.clearCookies();
    await popup.close();
    await page.close();
  }
}

heard(
  async ({ connect }) => say(await flow(connect)),
  () => browser.close(),
);
say({ port });
