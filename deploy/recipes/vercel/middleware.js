const targets = {
  // @EACH@
  "@PATH@": "@TARGET@",
  // @END@
};

export const config = {
  matcher: [
    // @EACH@
    "@PATH@",
    // @END@
  ],
};

export default async function middleware(request) {
  const target = targets[new URL(request.url).pathname];
  if (!target) return;
  // The raw query: `searchParams` would encode it again.
  const start = request.url.indexOf("?");
  let query = start < 0 ? "" : request.url.slice(start);
  let status = 308;
  const type = request.headers.get("content-type") ?? "";
  if (request.method === "POST" && type.startsWith("application/x-www-form-urlencoded")) {
    // Nango responds 415 to a form: the browser sends the fields again, in the query of a GET.
    query = `${query || "?"}${query.length > 1 ? "&" : ""}${await request.text()}`;
    status = 303;
  } else if (request.method !== "GET" && request.method !== "HEAD") {
    return new Response(null, { status: 405, headers: { Allow: "GET, HEAD, POST" } });
  }
  // `Response.redirect` could not carry `no-store`.
  return new Response(null, { status, headers: { Location: target + query, "Cache-Control": "no-store" } });
}
