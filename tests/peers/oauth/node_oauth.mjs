// @node-oauth/oauth2-server with Express, without a login page: it responds with an error to users
// who are not logged in, as its documentation shows. The kind `login` has a login page before it, and
// sends users there before it validates their request.

import OAuth2Server from "@node-oauth/oauth2-server";
import express from "express";
import { clients, listen, report } from "./registrations.mjs";

const all = clients("public", "confidential", "login");
const oauth = new OAuth2Server({
  model: {
    getClient: async (id) => {
      const client = all.find((it) => it.id === id);
      return client && { id, redirectUris: client.callbacks, grants: ["authorization_code"] };
    },
    saveAuthorizationCode: async (code, client, user) => ({ ...code, client, user }),
    getAccessToken: async () => undefined,
    getAuthorizationCode: async () => undefined,
    revokeAuthorizationCode: async () => true,
    saveToken: async () => undefined,
  },
});
const user = (request) => request.headers["x-user"] && { id: request.headers["x-user"] };

const authorize = async (incoming, outgoing) => {
  const request = new OAuth2Server.Request(incoming);
  const response = new OAuth2Server.Response(outgoing);
  try {
    await oauth.authorize(request, response, { authenticateHandler: { handle: user } });
    outgoing.set(response.headers).status(response.status).end();
  } catch (error) {
    // As in @node-oauth/express-oauth-server.
    outgoing.set(response.headers).status(error.code);
    outgoing.send({ error: error.name, error_description: error.message });
  }
};

const app = express();
app.get("/authorize", authorize);
app.get("/login/authorize", (request, response) =>
  user(request)
    ? authorize(request, response)
    : response.redirect(`/login?redirect=${encodeURIComponent(request.originalUrl)}`),
);

const headers = { "x-user": "user" };
await report(
  await listen(app),
  all,
  async (url) => (await fetch(url, { headers, redirect: "manual" })).headers.get("location"),
  (kind) => (kind === "login" ? { path: "/login/authorize" } : {}),
);
