// Looks at a page as a person would. Arguments: the browser, a folder for its profile. It says
// `{"ready"}`; each `{"url", "width", "scheme", "shot"}` that it hears it answers by what it saw: the
// heading, the URLs to paste, what was said against the page, where it scrolls sideways. With
// `"untouched"` it takes a picture of the upper end, tells all of the text, and clicks nowhere.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch } from "./chromium.mjs";
import { heard, say } from "./lines.mjs";

const [executablePath, profile] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await launch(
  executablePath,
  profile,
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
);

async function look({ url, width, scheme, shot, untouched }) {
  const page = await browser.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.setViewportSize({ width, height: untouched ? 832 : 900 });
  await page.emulateMedia({ colorScheme: scheme });
  const response = await page.goto(url);
  if (untouched) {
    await page.screenshot({ path: shot });
    const text = await page.evaluate(() => document.body.innerText);
    const policy = response.headers()["content-security-policy"];
    await page.close();
    return { text, policy };
  }
  const seen = await page.evaluate(() => ({
    heading: document.querySelector("h1").innerText,
    paste: [...document.querySelectorAll(".paste code")].map((code) => code.innerText),
    sideways: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    ground: getComputedStyle(document.body).backgroundColor,
  }));
  // One click takes the whole URL.
  await page.locator(".paste code").first().click();
  const selected = await page.evaluate(() => getSelection().toString());
  // The folded list opens by keyboard.
  const details = page.locator("details").first();
  const open = () => details.evaluate((element) => element.open);
  const before = await open();
  await details.locator("summary").focus();
  await page.keyboard.press("Enter");
  const toggles = (await open()) !== before;
  if (!(await open())) await page.keyboard.press("Enter");
  await page.screenshot({ path: shot, fullPage: true });
  const complained = [...complaints];
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  await page.close();
  return {
    status: response.status(),
    ...seen,
    selected,
    toggles,
    // A page that answers 503 is reported by the browser as a failed load of itself.
    complaints: complained.filter((text) => !text.includes("status of 503")),
    requests,
    violations: violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`),
  };
}

heard(
  async (what) => say(await look(what).catch((error) => ({ failed: error.message }))),
  () => browser.close(),
);
say({ ready: true });
