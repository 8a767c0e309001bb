import { NextResponse } from "next/server";

export async function GET(request, { params }) {
  const { flow } = await params;
  const url = new URL(`https://api.nango.dev/${flow.join("/")}`);
  request.nextUrl.searchParams.forEach((value, name) => url.searchParams.set(name, value));
  return NextResponse.redirect(url, { status: 308, headers: { "Cache-Control": "no-store" } });
}
