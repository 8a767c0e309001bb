export default function handler(request, response) {
  const at = request.url.indexOf("?");
  const query = at < 0 ? "" : request.url.slice(at);
  const path = request.url.slice(0, at < 0 ? undefined : at).split("/").slice(3).join("/");
  response.redirect(308, `https://api.nango.dev/${path}${query}`);
}
