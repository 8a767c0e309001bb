import express from "express";
import helmet from "helmet";
import { nangoCallback } from "./nango-callback.mjs";

const app = express();
// The recipe asks for another order; the headers of Helmet must be removed anyway.
app.use(helmet());
app.use(nangoCallback);
app.use(express.json(), express.urlencoded());
app.listen(process.env.PORT, "127.0.0.1");
