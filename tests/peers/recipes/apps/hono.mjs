import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { csrf } from "hono/csrf";
import { secureHeaders } from "hono/secure-headers";
import { nangoCallback } from "./nango-callback.js";

const app = new Hono();
app.route("/", nangoCallback);
app.use(secureHeaders(), csrf());
serve({ fetch: app.fetch, port: Number(process.env.PORT), hostname: "127.0.0.1" });
