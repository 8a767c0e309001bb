import { permanentRedirect } from "next/navigation";

export default async function Page({ params, searchParams }) {
  const { flow } = await params;
  permanentRedirect(`https://api.nango.dev/${flow.join("/")}?${new URLSearchParams(await searchParams)}`);
}
