// Callbacks in Express. The first segment of the path selects one.

import express from "express";
import { rateLimit } from "express-rate-limit";
import helmet from "helmet";

const NANGO = "https://api.nango.dev";
const app = express();
app.set("trust proxy", false);

const raw = (request) => {
  const at = request.originalUrl.indexOf("?");
  return at < 0 ? "" : request.originalUrl.slice(at);
};
const target = (request) => `${NANGO}/${request.params.flow.join("/")}`;
const route = (variant, ...handlers) => app.all(`/${variant}/*flow`, ...handlers);
const correct = (request, response) => {
  response.set("Cache-Control", "no-store").status(308).set("Location", target(request) + raw(request)).end();
};

route("correct", correct);
route("redirect", (request, response) => {
  response.set("Cache-Control", "no-store").redirect(308, target(request) + raw(request));
});
route("relative_scheme", (request, response) => {
  const location = target(request).replace("https:", "") + raw(request);
  response.set("Cache-Control", "no-store").status(308).set("Location", location).end();
});
route("temporary", (request, response) => response.redirect(target(request) + raw(request)));
route("cached", (request, response) => response.redirect(308, target(request) + raw(request)));
route("rebuilt", (request, response) => {
  response.set("Cache-Control", "no-store");
  response.redirect(308, `${target(request)}?${new URLSearchParams(request.query)}`);
});
route("picked", (request, response) => {
  const { code, state } = request.query;
  response.set("Cache-Control", "no-store").redirect(308, `${target(request)}?code=${code}&state=${state}`);
});
route("decoded", (request, response) => {
  const query = Object.entries(request.query).map(([name, value]) => `${name}=${value}`);
  response.set("Cache-Control", "no-store").redirect(308, `${target(request)}?${query.join("&")}`);
});
route("helmet", helmet(), correct);
route("helmet_off", helmet({ crossOriginOpenerPolicy: false, referrerPolicy: false }), correct);
route("helmet_referrer", helmet({ crossOriginOpenerPolicy: false }), correct);
route("refresh", (request, response) => {
  const url = (target(request) + raw(request)).replaceAll("&", "&amp;");
  response.type("html").send(`<!doctype html><meta http-equiv="refresh" content="0; url=${url}">`);
});
route("script", (request, response) => {
  response.type("html").send(`<!doctype html><div id="root"></div><script type="module" src="/assets/index.js"></script>`);
});
// A session that must exist before anything else is answered.
route("cookie_wall", (request, response) => {
  if (/visited=1/.test(request.get("Cookie") ?? "")) return correct(request, response);
  response.set("Set-Cookie", "visited=1; Path=/").redirect(302, request.originalUrl);
});
route("cookie_page", (request, response) => {
  if (/visited=1/.test(request.get("Cookie") ?? "")) return correct(request, response);
  response.set("Set-Cookie", "visited=1; Path=/").type("html").send("<title>One moment</title><script>location.reload()</script>");
});
route("cookie_forbidden", (request, response) => {
  if (/visited=1/.test(request.get("Cookie") ?? "")) return correct(request, response);
  response.set("Set-Cookie", "visited=1; Path=/").status(403).type("html").send("Enable cookies and reload");
});
route("login", (request, response) => response.redirect(302, `/login?next=${encodeURIComponent(request.originalUrl)}`));
app.get("/login", (request, response) => response.type("html").send(`<title>Log in</title><form method="post"><input type="password"></form>`));
route("limited", rateLimit({ windowMs: 60_000, limit: 20, standardHeaders: true, legacyHeaders: false }), correct);
const programs = /curl|wget|python|go-http|java|okhttp|axios|node-fetch|bot/i;
route("no_programs", (request, response) => {
  if (programs.test(request.get("User-Agent") ?? "")) return response.status(403).end();
  correct(request, response);
});
// Cross-site requests that are no navigation from this site.
route("same_site", (request, response) => {
  const site = request.get("Sec-Fetch-Site");
  if (site && !["same-origin", "same-site", "none"].includes(site)) return response.status(403).end();
  correct(request, response);
});
route("no_forms", (request, response) => {
  if (request.method === "POST") return response.status(403).end();
  correct(request, response);
});
route("form_page", (request, response) => {
  if (request.method === "POST") return response.send("OK");
  correct(request, response);
});
route("form_crash", (request, response) => {
  if (request.method === "POST") return response.status(500).send("Internal Server Error");
  correct(request, response);
});
route("endless", (request, response) => {
  response.set("Cache-Control", "no-store").status(308).set("Location", target(request) + raw(request));
  response.flushHeaders();
  const more = () => {
    while (!response.destroyed && response.write("x".repeat(1024)));
    if (!response.destroyed) response.once("drain", more);
  };
  response.on("error", () => {});
  more();
});
let count = 0;
route("flaky", (request, response) => {
  count += 1;
  if (count % 13 === 0) return response.status(500).send("Internal Server Error");
  correct(request, response);
});

app.listen(process.env.PORT, "127.0.0.1");
