// Inspects a page in a browser. Arguments: the browser, a directory for its profile. Sends `{"ready"}`;
// responds to each `{"url", "width", "scheme", "shot"}` with the heading, the URLs to paste, console
// messages, and whether the page overflows horizontally. With `"screenshot_only"` it takes a
// screenshot of the top of the page, sends its text, and clicks nothing.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch } from "./chromium.mjs";
import { onMessage, send } from "./lines.mjs";

const [executablePath, profile] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await launch(
  executablePath,
  profile,
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
);

async function inspect({ url, width, scheme, shot, screenshot_only }) {
  const page = await browser.newPage();
  const messages = [];
  page.on("console", (message) => messages.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => messages.push(`error: ${error.message}`));
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.setViewportSize({ width, height: screenshot_only ? 832 : 900 });
  await page.emulateMedia({ colorScheme: scheme });
  const response = await page.goto(url);
  if (screenshot_only) {
    await page.screenshot({ path: shot });
    const text = await page.evaluate(() => document.body.innerText);
    const policy = response.headers()["content-security-policy"];
    await page.close();
    return { text, policy };
  }
  const seen = await page.evaluate(() => ({
    heading: document.querySelector("h1").innerText,
    paste: [...document.querySelectorAll(".paste code")].map((code) => code.innerText),
    overflows: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    background: getComputedStyle(document.body).backgroundColor,
  }));
  // One click selects the complete URL.
  await page.locator(".paste code").first().click();
  const selected = await page.evaluate(() => getSelection().toString());
  // The collapsed list opens by keyboard.
  const details = page.locator("details").first();
  const open = () => details.evaluate((element) => element.open);
  const before = await open();
  await details.locator("summary").focus();
  await page.keyboard.press("Enter");
  const toggles = (await open()) !== before;
  if (!(await open())) await page.keyboard.press("Enter");
  await page.screenshot({ path: shot, fullPage: true });
  const before_axe = [...messages];
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  await page.close();
  return {
    status: response.status(),
    ...seen,
    selected,
    toggles,
    // The browser reports the status 503 of the page itself.
    console: before_axe.filter((text) => !text.includes("status of 503")),
    requests,
    violations: violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`),
  };
}

onMessage(
  async (message) => send(await inspect(message).catch((error) => ({ failed: error.message }))),
  () => browser.close(),
);
send({ ready: true });
