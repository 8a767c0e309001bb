const targets = {
  // @EACH@
  "@PATH@": "@TARGET@",
  // @END@
};

export async function handler(event) {
  const { method } = event.requestContext.http;
  const target = targets[event.rawPath];
  if (!target) return { statusCode: 404 };
  // `queryStringParameters` joins duplicates and is decoded.
  let query = event.rawQueryString;
  let statusCode = 308;
  const type = event.headers["content-type"] ?? "";
  if (method === "POST" && type.startsWith("application/x-www-form-urlencoded")) {
    // Nango responds 415 to a form: the browser sends the fields again, in the query of a GET.
    const body = event.body ?? "";
    const form = event.isBase64Encoded ? Buffer.from(body, "base64").toString() : body;
    query = query ? `${query}&${form}` : form;
    statusCode = 303;
  } else if (method !== "GET" && method !== "HEAD") {
    return { statusCode: 405, headers: { Allow: "GET, HEAD, POST" } };
  }
  // The gateway may not check headers: a form must not add lines to the response.
  if (/[^!-~]/.test(query)) return { statusCode: 400 };
  const location = query ? `${target}?${query}` : target;
  return { statusCode, headers: { Location: location, "Cache-Control": "no-store" } };
}
