// What the OAuth servers in Node have in common; the counterpart of registrations.py.

const [old, fresh] = process.argv.slice(2);

const registered = {
  both: [old, fresh],
  "only-old": [old],
  "only-new": [fresh],
  neither: ["https://elsewhere.example/callback"],
};

/** Client id, kind and registered callbacks of each kind in each situation. */
export const clients = (...kinds) =>
  kinds.flatMap((kind) =>
    Object.entries(registered).map(([situation, callbacks]) => ({
      id: `${kind}-${situation}`,
      kind,
      callbacks,
    })),
  );

/** Listens on a port that the system selects; resolves to its origin. */
export const listen = (server) =>
  new Promise((resolve) => {
    const listening = server.listen(0, "127.0.0.1", () =>
      resolve(`http://127.0.0.1:${listening.address().port}`),
    );
  });

/** An HTTP client that keeps cookies and does not follow redirects. */
export function browser() {
  const cookies = new Map();
  return async (url, options = {}) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const headers = { cookie, ...options.headers };
    const response = await fetch(url, { redirect: "manual", ...options, headers });
    for (const line of response.headers.getSetCookie()) {
      const [name, ...value] = line.split(";")[0].split("=");
      cookies.set(name, value.join("="));
    }
    return response;
  };
}

/**
 * Reports the server, and exits at the end of its input. `logIn` resolves to the location after a
 * completed login, from the URL of an authorization request.
 */
export async function report(origin, all, logIn, described = () => ({})) {
  const reported = [];
  for (const { id, kind, callbacks } of all) {
    const client = { id, kind, path: "/authorize", scope: "read", ...described(kind) };
    const accepted = [];
    for (const callback of [old, fresh]) {
      const query = new URLSearchParams({
        client_id: id,
        redirect_uri: callback,
        response_type: "code",
        scope: client.scope,
        state: "of-a-login",
        code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeWK1t8URWbuGJSstw-cM",
        code_challenge_method: "S256",
      });
      const location = (await logIn(`${origin}${client.path}?${query}`, kind)) ?? "";
      if (location.startsWith(`${callback}?`) && location.includes("code=")) accepted.push(callback);
    }
    reported.push({ ...client, registered: callbacks, accepted });
  }
  const port = Number(new URL(origin).port);
  process.stdout.write(`${JSON.stringify({ port, clients: reported })}\n`);
  process.stdin.resume().on("end", () => process.exit(0));
}
