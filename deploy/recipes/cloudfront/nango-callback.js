const targets = {
  // @EACH@
  "@PATH@": "@TARGET@",
  // @END@
};

function handler(event) {
  const request = event.request;
  const target = targets[request.uri];
  if (!target) return request;
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { statusCode: 405, statusDescription: "Method Not Allowed" };
  }
  // Unchanged; `request.querystring` would have to be encoded again. `undefined` without a `?`.
  const query = request.rawQueryString();
  return {
    statusCode: 308,
    statusDescription: "Permanent Redirect",
    headers: {
      location: { value: query === undefined ? target : `${target}?${query}` },
      "cache-control": { value: "no-store" },
    },
  };
}
