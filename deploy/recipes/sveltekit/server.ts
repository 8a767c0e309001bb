const target = "@TARGET@";

async function redirect({ request }: { request: Request }) {
  const form =
    request.method === "POST" &&
    /^application\/x-www-form-urlencoded/i.test(request.headers.get("content-type") ?? "");
  if (!form && request.method !== "GET" && request.method !== "HEAD") return new Response(null, { status: 405 });
  // The query as received: `url.searchParams` would have to be encoded again, which changes it.
  const query = [request.url.replace(/^[^?]*\??/, ""), form && (await request.text())].filter(Boolean).join("&");
  // `redirect` of SvelteKit sends no `Cache-Control`.
  return new Response(null, {
    status: form ? 303 : 308,
    headers: { Location: query ? `${target}?${query}` : target, "Cache-Control": "no-store" },
  });
}

export { redirect as GET, redirect as POST };
