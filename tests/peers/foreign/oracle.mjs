// Measures on the wire what a callback does, independently of the program under test: sends the
// requests of browsers that come from providers, and parses the query of each Location with the parser
// of Nango. Receives `{"address", "port", "host", "path", "target", "tls", "protocol"}`, and sends
// `{"facts": […], "details": {…}}`.

import * as http from "node:http";
import * as http2 from "node:http2";
import * as https from "node:https";
import { isDeepStrictEqual } from "node:util";
import qs from "qs";
import { onMessage, send } from "./../lines.mjs";

const STATE = "0f8fad5b-d9cb-469f-a165-70867728950e";
// What browsers send in a query (WHATWG URL), and RFC 3986 allows. Values are invented.
const QUERIES = {
  github: [`code=0123456789abcdef0123&state=${STATE}`, "https://github.com/"],
  google: [`state=${STATE}&code=4/0AbInvented&scope=email%20profile%20https://www.googleapis.com/auth/userinfo.profile&authuser=0&prompt=consent`, "https://accounts.google.com/"],
  entra: [`error=access_denied&state=${STATE}&error_description=AADSTS65004%3a+User+declined.%0d%0aTrace+ID%3a+0`, "https://login.microsoftonline.com/"],
  shopify: [`code=ab&hmac=0a1b&host=YWRtaW4%3D&shop=invented.myshopify.com&state=${STATE}&timestamp=1760000000`, "https://admin.shopify.com/"],
  zoho: [`state=${STATE}&code=1000.invented&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu`, "https://accounts.zoho.eu/"],
  braintree: [`state=${STATE}&merchantId=O%27Brien%20%26%20Sons&code=a%2Bb`, "https://www.braintreegateway.com/"],
  amazon: [`state=${STATE}&selling_partner_id=A1&spapi_oauth_code=x&mws_auth_token=`, "https://sellercentral.amazon.com/"],
  crisp: [`payload=${STATE}&website_id=00aa&bare`, "https://app.crisp.chat/"],
  utf8: [`state=${STATE}&code=a&businessName=Caf%C3%A9%20%E2%82%AC`, "https://secure.myob.com/"],
  duplicates: [`state=${STATE}&scope=b&code=a&scope=a&scope=b`, "https://example.okta.com/"],
  delimiters: [`state=${STATE}&code=!$()*,;:@/?-._~&text=100%2525%25`, "https://example.okta.com/"],
  nested: [`state=${STATE}&code=a&fields%5Bemail%5D=someone%40example.com`, "https://api.typeform.com/"],
};
const BROWSER = {
  "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
  Accept: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  "Accept-Language": "en-US,en;q=0.9",
  "Sec-Fetch-Site": "cross-site",
  "Sec-Fetch-Mode": "navigate",
  "Sec-Fetch-Dest": "document",
  "Upgrade-Insecure-Requests": "1",
};
const PROGRAMS = ["curl/8.5.0", "python-requests/2.32.3", "Go-http-client/1.1"];

/** The status and the headers of a response; its body is not awaited. */
function request(callback, path, headers, agent) {
  const { address, port, host, tls, protocol } = callback;
  if (protocol === "h2") {
    return new Promise((resolve, reject) => {
      const session = http2.connect(`https://${host}:${port}`, { host: address, port, servername: host, rejectUnauthorized: false });
      session.on("error", reject);
      const stream = session.request({ ":path": path, ...headers });
      stream.on("error", reject);
      stream.on("response", (headers) => {
        resolve({ status: headers[":status"], headers });
        session.destroy();
      });
    });
  }
  return new Promise((resolve, reject) => {
    const options = { host: address, port, path, agent, servername: host, rejectUnauthorized: false };
    options.headers = { Host: `${host}:${port}`, ...headers };
    const sent = (tls ? https : http).get(options, (response) => {
      const text = response.statusCode < 300;
      resolve({ status: response.statusCode, headers: response.headers, text });
      response.on("error", () => {});
      response.destroy();
    });
    sent.setTimeout(10_000, () => sent.destroy(new Error("time-out")));
    sent.on("error", reject);
  });
}

/** What a user would notice of one response: `""`, or the fault. */
function fault(response, query, target) {
  if (response instanceof Error) return "no response";
  const { status, headers } = response;
  if (status < 300) return "page";
  if (status >= 400) return `refused ${status}`;
  const location = new URL(headers.location ?? "", target);
  // As a browser resolves it; the fragment is not sent.
  if (location.origin + location.pathname !== target) return "elsewhere";
  const options = { arrayLimit: 100 };
  const got = qs.parse(location.search.slice(1), options);
  return isDeepStrictEqual(got, qs.parse(query, options)) ? "" : "values";
}

async function measure(callback) {
  const facts = new Set();
  const details = {};
  const attempt = async (query, headers) => {
    const path = query === null ? callback.path : `${callback.path}?${query}`;
    return request(callback, path, headers, false).catch((error) => error);
  };
  const browser = (referer) => ({ ...BROWSER, ...(referer && { Referer: referer }) });
  const [plain] = QUERIES.github;

  // Repeated, so that a failure now and then is not taken for the effect of a query.
  const repeated = [];
  for (let turn = 0; turn < 30; turn += 1) {
    repeated.push(fault(await attempt(plain, browser("https://github.com/")), plain, callback.target));
  }
  const failed = repeated.filter((what) => what !== "");
  if (failed.length > 0 && failed.length < repeated.length) {
    const [limited] = [failed.every((what) => /refused (429|503)/.test(what))];
    const ordered = repeated.slice(repeated.indexOf(failed[0])).every((what) => what !== "");
    facts.add(limited && ordered ? "limited" : "intermittent");
    return { facts: [...facts], details: { failed: `${failed.length} of ${repeated.length}: ${failed[0]}` } };
  }
  if (failed.length === repeated.length) {
    // A direct visit has no referrer.
    const direct = { ...BROWSER, "Sec-Fetch-Site": "none" };
    const works = fault(await attempt(plain, direct), plain, callback.target) === "";
    const kind = failed[0];
    if (works) return { facts: ["only direct visits"], details: { kind } };
    const cookie = (await attempt(plain, browser())).headers?.["set-cookie"];
    if (cookie && kind !== "values") {
      const headers = { ...browser("https://github.com/"), Cookie: cookie[0].split(";")[0] };
      if (fault(await attempt(plain, headers), plain, callback.target) === "") return { facts: ["cookie wall"], details: { kind } };
    }
    return { facts: [kind], details: {} };
  }
  for (const [name, [query, referer]] of Object.entries(QUERIES)) {
    const response = await attempt(query, browser(referer));
    const what = fault(response, query, callback.target);
    if (what !== "") {
      facts.add(what.startsWith("refused") ? "blocks a query" : what);
      details[name] = response.headers?.location?.split("?")[1] ?? what;
    } else if (response.headers.location.split("?")[1] !== query) {
      facts.add("bytes");
    }
    const headers = response.headers ?? {};
    if (headers["cross-origin-opener-policy"] && headers["cross-origin-opener-policy"] !== "unsafe-none") facts.add("opener");
    if (/^(no-referrer|same-origin)$/.test(headers["referrer-policy"] ?? "")) facts.add("referrer");
    if (headers["set-cookie"]) facts.add("cookie");
    if ([301, 308].includes(response.status) && !/no-store|no-cache|private.*max-age=0/.test(headers["cache-control"] ?? "")) facts.add("cacheable");
    if (what === "" && response.status !== 308) facts.add(`status ${response.status}`);
  }
  for (const size of [1945, 2150, 4096, 5120, 6144]) {
    const query = `${`code=0.AX${"0123456789abcdef-".repeat(500)}`.slice(0, size - STATE.length - 7)}&state=${STATE}`;
    const what = fault(await attempt(query, browser("https://login.microsoftonline.com/")), query, callback.target);
    if (what !== "" && what !== "values") {
      facts.add("size");
      details.size = `${size}: ${what}`;
      break;
    } else if (what === "values") {
      facts.add("values");
    }
  }
  for (const name of PROGRAMS) {
    const what = fault(await attempt(plain, { "User-Agent": name, Accept: "*/*" }), plain, callback.target);
    if (what !== "") facts.add("blocks programs");
  }
  return { facts: [...facts].sort(), details };
}

onMessage(async (callback) => {
  send(await measure(callback));
});
