export default function handler(request, response) {
  const { flow, ...query } = request.query;
  response.setHeader("Cache-Control", "no-store");
  response.redirect(308, `https://api.nango.dev/${flow.join("/")}?${new URLSearchParams(query)}`);
}
