// The backend of an app: calls Nango through the real SDK. Arguments: Nango's URL and an API key.
// Responds to `{"call": METHOD, "with": [arguments]}` with `{"result"}` or `{"error": status, "code"}`.

import { Nango } from "@nangohq/node";
import { onMessage, send } from "../lines.mjs";

const [host, secretKey] = process.argv.slice(2);
const nango = new Nango({ host, secretKey });

onMessage(async ({ call, with: args }) => {
  try {
    const result = await nango[call](...args);
    // Some calls return the complete response.
    send({ result: result?.request ? result.data : result });
  } catch (error) {
    send({ error: error.response?.status ?? error.message, code: error.response?.data?.error });
  }
});
send({ ready: true });
