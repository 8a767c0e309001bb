const target = "@TARGET@";

async function redirect(request: Request) {
  const form =
    request.method === "POST" &&
    /^application\/x-www-form-urlencoded/i.test(request.headers.get("content-type") ?? "");
  if (!form && request.method !== "GET" && request.method !== "HEAD") return new Response(null, { status: 405 });
  // `searchParams` would lose parameters that occur twice.
  const query = [request.url.replace(/^[^?]*\??/, ""), form && (await request.text())].filter(Boolean).join("&");
  // `NextResponse.redirect` and `redirect` send no `Cache-Control`.
  return new Response(null, {
    status: form ? 303 : 308,
    headers: { Location: query ? `${target}?${query}` : target, "Cache-Control": "no-store" },
  });
}

export { redirect as GET, redirect as POST };
