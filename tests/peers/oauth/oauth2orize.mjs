// oauth2orize with Express. `/authorize` validates the request and shows a login; `/later` requires
// a login first, as in its examples. Before that login, `/branded` shows partners a login page of their
// own, and `/unreviewed` shows a warning to all but partners; neither depends on a registration.

import express from "express";
import session from "express-session";
import oauth2orize from "oauth2orize";
import { browser, clients, listen, report } from "./registrations.mjs";

const all = clients("confidential", "public", "later", "branded", "unreviewed");
const server = oauth2orize.createServer();
server.serializeClient((client, done) => done(null, client.id));
server.deserializeClient((id, done) => done(null, all.find((it) => it.id === id)));
server.grant(
  oauth2orize.grant.code((client, redirectUri, user, response, done) => done(null, crypto.randomUUID())),
);
const validate = server.authorization(
  (id, redirectUri, done) => {
    const client = all.find((it) => it.id === id);
    if (!client) return done(null, false);
    if (!client.callbacks.includes(redirectUri)) return done(null, false);
    return done(null, client, redirectUri);
  },
  // A user who is logged in has consented before.
  (client, user, done) => done(null, user !== undefined),
);

const app = express();
// Errors get a page without a reason.
app.set("env", "production");
console.error = () => {};
app.use(session({ secret: "of the test", resave: false, saveUninitialized: false }));
app.use((request, response, next) => {
  request.user = request.session.user;
  next();
});
const ensureLoggedIn = (request, response, next) => {
  if (request.user) return next();
  request.session.returnTo = request.originalUrl;
  response.redirect("/login");
};
app.get("/authorize", validate, ensureLoggedIn, server.errorHandler({ mode: "indirect" }));
app.get("/later", ensureLoggedIn, validate, server.errorHandler({ mode: "indirect" }));
const isPartner = (request) => request.query.redirect_uri.startsWith("https://api.nango.dev/");
app.get(
  "/branded",
  (request, response, next) =>
    request.user || !isPartner(request) ? next() : response.redirect("/login/nango"),
  ensureLoggedIn,
  validate,
  server.errorHandler({ mode: "indirect" }),
);
app.get(
  "/unreviewed",
  (request, response, next) =>
    request.user || isPartner(request)
      ? next()
      : response.send("<h1>This site was not reviewed</h1><a href=/login>Continue</a>"),
  ensureLoggedIn,
  validate,
  server.errorHandler({ mode: "indirect" }),
);
app.get("/login", (request, response) => {
  response.send("<form method=post><input name=username><input name=password type=password></form>");
});
app.post("/login", (request, response) => {
  request.session.user = { id: "user" };
  response.redirect("/");
});

const origin = await listen(app);
const visit = browser();
await visit(`${origin}/login`, { method: "POST" });
await report(
  origin,
  all,
  async (url) => (await visit(url)).headers.get("location"),
  (kind) => (["confidential", "public"].includes(kind) ? {} : { path: `/${kind}` }),
);
