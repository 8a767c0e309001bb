export async function GET(request, { params }) {
  const { flow } = await params;
  const location = `https://api.nango.dev/${flow.join("/")}${request.nextUrl.search}`;
  return new Response(null, { status: 308, headers: { Location: location, "Cache-Control": "no-store" } });
}
