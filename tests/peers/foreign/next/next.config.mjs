const NANGO = "https://api.nango.dev";
const noStore = [{ key: "Cache-Control", value: "no-store" }];

export default {
  typescript: { ignoreBuildErrors: true },
  redirects: async () => [
    { source: "/config/:flow*", destination: `${NANGO}/:flow*`, permanent: true },
    { source: "/config_no_store/:flow*", destination: `${NANGO}/:flow*`, permanent: true },
    { source: "/config_temporary/:flow*", destination: `${NANGO}/:flow*`, permanent: false },
    { source: "/config_code/:flow*", destination: `${NANGO}/:flow*?source=app`, permanent: true },
  ],
  headers: async () => ["/config_no_store/:flow*", "/config_code/:flow*"].map((source) => ({ source, headers: noStore })),
};
