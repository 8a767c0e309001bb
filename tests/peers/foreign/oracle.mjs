// Measures on the wire what a callback does, independently of the program under test: sends the
// requests of browsers that come from providers, and parses the query of each Location with the parser
// of Nango. Receives `{"host", "ports", "path", "target", "tls", "protocols"}`, and sends
// `{"facts": […], "details": {…}}`.

import * as http from "node:http";
import * as http2 from "node:http2";
import * as https from "node:https";
import { isDeepStrictEqual } from "node:util";
import qs from "qs";
import { onMessage, send } from "../lines.mjs";

const STATE = "0f8fad5b-d9cb-469f-a165-70867728950e";
// What browsers send in a query (WHATWG URL), and RFC 3986 allows. Values are invented.
const QUERIES = {
  github: [`code=0123456789abcdef0123&state=${STATE}`, "https://github.com/"],
  google: [`state=${STATE}&code=4/0AbInvented&scope=email%20profile%20https://www.googleapis.com/auth/userinfo.profile&authuser=0&prompt=consent`, "https://accounts.google.com/"],
  entra: [`error=access_denied&state=${STATE}&error_description=AADSTS65004%3a+User+declined.%0d%0aTrace+ID%3a+0`, "https://login.microsoftonline.com/"],
  shopify: [`code=ab&hmac=0a1b&host=YWRtaW4%3D&shop=invented.myshopify.com&state=${STATE}&timestamp=1760000000`, "https://admin.shopify.com/"],
  zoho: [`state=${STATE}&code=1000.invented&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu&`, "https://accounts.zoho.eu/"],
  braintree: [`state=${STATE}&merchantId=O%27Brien%20%26%20Sons&code=a%2Bb`, "https://www.braintreegateway.com/"],
  amazon: [`state=${STATE}&selling_partner_id=A1&spapi_oauth_code=x&mws_auth_token=`, "https://sellercentral.amazon.com/"],
  crisp: [`payload=${STATE}&website_id=00aa&bare`, "https://app.crisp.chat/"],
  utf8: [`state=${STATE}&code=a&businessName=Caf%C3%A9%20%E2%82%AC`, "https://secure.myob.com/"],
  duplicates: [`state=${STATE}&scope=b&code=a&scope=a&scope=b`, "https://example.okta.com/"],
  delimiters: [`state=${STATE}&code=!$()*,;:@/?-._~&text=100%2525%25`, "https://example.okta.com/"],
  consent: [`admin_consent=True&tenant=00aa&state=${STATE}&scope=https%3a%2f%2fgraph.microsoft.com%2f.default`, "https://login.microsoftonline.com/"],
  tiktok: [`state=${STATE}&code=inv%2Aented%216200%7e&scopes=user.info.basic%2Cvideo.list`, "https://www.tiktok.com/"],
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
const browser = (referer) => ({ ...BROWSER, ...(referer && { Referer: referer }) });
const PROGRAMS = ["curl/8.5.0", "python-requests/2.32.3", "Go-http-client/1.1"];

/** The status and the headers of a response; its body is not awaited. */
function request({ host, port, tls, protocol }, path, headers) {
  const address = "127.0.0.1";
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
    const options = { host: address, port, path, agent: false, servername: host, rejectUnauthorized: false };
    options.headers = { Host: `${host}:${port}`, ...headers };
    const sent = (tls ? https : http).get(options, (response) => {
      resolve({ status: response.statusCode, headers: response.headers });
      response.on("error", () => {});
      response.destroy();
    });
    sent.setTimeout(3_000, () => sent.destroy(new Error("time-out")));
    sent.on("error", reject);
  });
}

/** What a user would notice of one response: `""`, or the fault. */
function fault(response, query, url, target) {
  if (response instanceof Error) return "no response";
  const { status, headers } = response;
  if (status < 300) return "page";
  if (status >= 400) return `refused ${status}`;
  // As a browser resolves it; the fragment is not sent.
  const location = new URL(headers.location ?? "", url);
  if (location.origin + location.pathname !== target) return "elsewhere";
  const options = { arrayLimit: 100 };
  const got = qs.parse(location.search.slice(1), options);
  return isDeepStrictEqual(got, qs.parse(query, options)) ? "" : "values";
}

/** What is true of one address over one protocol. */
async function measure(callback) {
  const facts = new Set();
  const details = {};
  const url = `${callback.tls ? "https" : "http"}://${callback.host}:${callback.port}${callback.path}`;
  const attempt = async (query, headers, path = callback.path) =>
    request(callback, `${path}?${query}`, headers).catch((error) => error);
  const judge = (response, query) => fault(response, query, url, callback.target);
  const [plain] = QUERIES.github;

  // Repeated, so that a failure now and then is not taken for the effect of a query.
  const repeated = [];
  for (let turn = 0; turn < 30; turn += 1) {
    repeated.push(judge(await attempt(plain, browser("https://github.com/")), plain));
  }
  const failed = repeated.filter((what) => what !== "");
  if (failed.length > 0 && failed.length < repeated.length) {
    const isLimit = failed.every((what) => /refused (429|503)/.test(what)) && repeated.indexOf(failed[0]) > 9;
    return { facts: [isLimit ? "limited" : "intermittent"], details: { failed: `${failed.length} of ${repeated.length}: ${failed[0]}` } };
  }
  if (failed.length > 0) {
    const [kind] = failed;
    if (judge(await attempt(plain, { ...browser(), "Sec-Fetch-Site": "none" }), plain) === "") {
      return { facts: ["direct visits only"], details: { kind } };
    }
    const cookie = (await attempt(plain, browser())).headers?.["set-cookie"]?.[0].split(";")[0];
    if (cookie && judge(await attempt(plain, { ...browser("https://github.com/"), Cookie: cookie }), plain) === "") {
      return { facts: ["cookie wall"], details: { kind } };
    }
  }
  for (const [name, [query, referer]] of Object.entries(QUERIES)) {
    const response = await attempt(query, browser(referer));
    const { status, headers } = response instanceof Error ? { headers: {} } : response;
    const what = judge(response, query);
    if (what !== "") {
      facts.add(what);
      details[name] = headers.location ?? `${what} ${response.message ?? ""}`;
      continue;
    }
    if (headers.location.slice(headers.location.indexOf("?") + 1) !== query) facts.add("bytes");
    if ((headers["cross-origin-opener-policy"] ?? "unsafe-none") !== "unsafe-none") facts.add("opener");
    if (/^(no-referrer|same-origin)/.test(headers["referrer-policy"] ?? "")) facts.add("referrer");
    if (headers["set-cookie"]) facts.add("cookie");
    if ([301, 308].includes(status) && !/no-store/.test(headers["cache-control"] ?? "")) facts.add("cacheable");
    if (status !== 308) facts.add(`status ${status}`);
  }
  if (facts.has("values") || failed.length === 0) {
    for (const size of [1945, 2150, 4096, 5120, 6144]) {
      const code = "0.AX" + "0123456789abcdef-".repeat(500);
      const query = `state=${STATE}&code=${code}`.slice(0, size);
      const what = judge(await attempt(query, browser("https://login.microsoftonline.com/")), query);
      if (what !== "") {
        if (!facts.has("values")) facts.add("size");
        details.size = `${size}: ${what}`;
        break;
      }
    }
  }
  if (failed.length === 0) {
    for (const size of [8190, 12288]) {
      const query = `state=${STATE}&code=${"0123456789abcdef-".repeat(800)}`.slice(0, size);
      if (!facts.has("values") && judge(await attempt(query, browser()), query) !== "") facts.add("over 6 KiB");
    }
    const bare = await request(callback, callback.path, browser()).catch(() => ({}));
    if (bare.headers?.location?.endsWith("?")) facts.add("bare `?`");
    for (const name of PROGRAMS) {
      const what = judge(await attempt(plain, { "User-Agent": name, Accept: "*/*" }), plain);
      if (what !== "") facts.add("programs");
    }
    const second = callback.path.replace("oauth/callback", "app-auth/connect");
    const response = await attempt(plain, browser("https://github.com/"), second);
    if (fault(response, plain, url, callback.target.replace("oauth/callback", "app-auth/connect"))) facts.add("no setup URL");
  }
  if (facts.has("size")) facts.delete("over 6 KiB");
  if (callback.only === "h2") {
    const first = await request({ ...callback, protocol: "h1" }, `${callback.path}?${plain}`, browser()).catch(() => ({}));
    if (judge({ status: 500, headers: {}, ...first }, plain) !== "") facts.add("HTTP/2 only");
  }
  return { facts: [...facts].sort(), details };
}

/** Each address over each protocol; what differs has the address or the protocol in front. */
async function measureAll({ ports, protocols, ...callback }) {
  const all = [];
  for (const [number, port] of ports.entries()) {
    for (const protocol of protocols) {
      const where = ports.length > 1 ? `address ${number + 1}` : protocol;
      all.push({ where, ...(await measure({ ...callback, port, protocol, only: protocols.length === 1 && protocol })) });
    }
  }
  const inAll = (fact) => all.every(({ facts }) => facts.includes(fact));
  const facts = all.flatMap((one) => one.facts.map((fact) => (inAll(fact) ? fact : `${one.where}: ${fact}`)));
  return { facts: [...new Set(facts)].sort(), details: Object.assign({}, ...all.map(({ details }) => details)) };
}

onMessage(async (callback) => send(await measureAll(callback)));
