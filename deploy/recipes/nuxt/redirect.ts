const target = "@TARGET@";

export default defineEventHandler(async (event) => {
  const form =
    event.method === "POST" &&
    /^application\/x-www-form-urlencoded/i.test(getRequestHeader(event, "content-type") ?? "");
  if (!form && event.method !== "GET" && event.method !== "HEAD") throw createError({ status: 405 });
  // The query as received: `getQuery` would have to be encoded again, which changes it.
  const query = [event.path.replace(/^[^?]*\??/, ""), form && (await readRawBody(event))].filter(Boolean).join("&");
  // `sendRedirect` would write the query into a page too. Security modules set the two headers that are removed.
  removeResponseHeader(event, "Cross-Origin-Opener-Policy");
  removeResponseHeader(event, "Referrer-Policy");
  setResponseHeaders(event, { Location: query ? `${target}?${query}` : target, "Cache-Control": "no-store" });
  setResponseStatus(event, form ? 303 : 308);
  return "";
});
