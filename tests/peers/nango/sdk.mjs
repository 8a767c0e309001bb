// An app's backend: it talks to Nango through the real SDK. Arguments: Nango's URL and an API key.
// To `{"call": METHOD, "with": [arguments]}` it says `{"answer"}`, or `{"refused": status, "code"}`.

import { Nango } from "@nangohq/node";
import { onMessage, send } from "../lines.mjs";

const [host, secretKey] = process.argv.slice(2);
const nango = new Nango({ host, secretKey });

onMessage(async ({ call, with: given }) => {
  try {
    const answer = await nango[call](...given);
    // Some calls answer with the whole response.
    send({ answer: answer?.request ? answer.data : answer });
  } catch (error) {
    send({ refused: error.response?.status ?? error.message, code: error.response?.data?.error });
  }
});
send({ ready: true });
