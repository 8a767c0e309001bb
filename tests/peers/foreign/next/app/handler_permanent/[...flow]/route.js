import { permanentRedirect } from "next/navigation";

export async function GET(request, { params }) {
  const { flow } = await params;
  permanentRedirect(`https://api.nango.dev/${flow.join("/")}${request.nextUrl.search}`);
}
