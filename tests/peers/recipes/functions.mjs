// Calls a function of a cloud for each HTTP request, with the event that its provider documents.
// Arguments: the kind of the event, and the file of the function. Listens on the port in PORT.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { runInNewContext } from "node:vm";

const [kind, file] = process.argv.slice(2);

/** Vercel's and Netlify's: a Request of the Fetch standard. */
async function fetchStandard() {
  const { default: handler } = await import(`file://${file}`);
  return async ({ method, url, headers, body }) => {
    const request = new Request(`http://localhost${url}`, {
      method,
      headers,
      body: body.length > 0 ? body : undefined,
    });
    const response = await handler(request);
    return response && { status: response.status, headers: Object.fromEntries(response.headers) };
  };
}

/** AWS Lambda: payload format 2.0 of function URLs and HTTP APIs. */
async function lambda() {
  const { handler } = await import(`file://${file}`);
  return async ({ method, url, headers, body }) => {
    const [rawPath, rawQueryString] = split(url);
    const parameters = {};
    for (const [name, value] of new URLSearchParams(rawQueryString)) {
      parameters[name] = name in parameters ? `${parameters[name]},${value}` : value;
    }
    const { statusCode, headers: sent } = await handler({
      version: "2.0",
      routeKey: "$default",
      rawPath,
      rawQueryString: rawQueryString ?? "",
      headers,
      queryStringParameters: parameters,
      requestContext: { http: { method, path: rawPath, protocol: "HTTP/1.1" } },
      body: body.toString("base64"),
      isBase64Encoded: true,
    });
    return { status: statusCode, headers: sent };
  };
}

/** Amazon CloudFront: the event of viewer requests, runtime 2.0. */
function cloudfront() {
  const handler = runInNewContext(`${readFileSync(file, "utf8")}\nhandler;`);
  return async ({ method, url, headers }) => {
    const [uri, query] = split(url);
    const querystring = {};
    for (const pair of (query ?? "").split("&").filter(Boolean)) {
      const [name, ...value] = pair.split("=");
      querystring[name] ??= { value: value.join("=") };
    }
    const request = {
      method,
      uri,
      querystring,
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, { value }])),
      cookies: {},
      rawQueryString: () => query,
    };
    const context = { eventType: "viewer-request" };
    const result = handler({ version: "1.0", context, viewer: { ip: "127.0.0.1" }, request });
    // The request itself passes to the origin.
    if (result === request) return undefined;
    const sent = Object.entries(result.headers ?? {}).map(([name, { value }]) => [name, value]);
    return { status: result.statusCode, headers: Object.fromEntries(sent) };
  };
}

/** The path, and the query unless there is no `?`. */
function split(url) {
  const [path, ...query] = url.split("?");
  return [path, query.length > 0 ? query.join("?") : undefined];
}

const call = await { fetch: fetchStandard, lambda, cloudfront }[kind]();

createServer(async (request, response) => {
  const { method, url, headers } = request;
  const body = Buffer.concat(await request.toArray());
  // A platform responds to an exception in its own way.
  const result = await call({ method, url, headers, body }).catch(() => ({ status: 500 }));
  response.writeHead(result?.status ?? 404, result?.headers).end();
}).listen(process.env.PORT, "127.0.0.1");
