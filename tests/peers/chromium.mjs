// Chromium for these tests: headless, without background requests.

import { chromium } from "playwright-core";

export async function launch(executablePath, profile, ...more) {
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...more,
    ],
  });
  browser.setDefaultTimeout(15_000);
  return browser;
}
