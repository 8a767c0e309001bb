// The query parser of Nango's server: Express calls `qs.parse(query, { arrayLimit: 100 })`.
//
// For each line, a list of pairs of queries, sends what both are parsed to and whether these are equal.

import { isDeepStrictEqual } from "node:util";
import qs from "qs";
import { onMessage, send } from "./lines.mjs";

onMessage((pairs) => {
  const results = pairs.map((pair) => {
    const [one, other] = pair.map((query) => qs.parse(query, { arrayLimit: 100 }));
    return { one, other, equal: isDeepStrictEqual(one, other) };
  });
  send({ results });
});
