import { NextResponse } from "next/server";

export async function GET(request, { params }) {
  const { flow } = await params;
  return NextResponse.redirect(`https://api.nango.dev/${flow.join("/")}${new URL(request.url).search}`);
}
