import express from "express";

const targets = {
  // @EACH@
  "@PATH@": "@TARGET@",
  // @END@
};

const router = express.Router({ caseSensitive: true, strict: true });

router.use((request, response, next) => {
  // The raw query: `request.query` would have to be encoded again, which changes its bytes.
  const [path, ...query] = request.originalUrl.split("?");
  const target = Object.hasOwn(targets, path) && targets[path];
  if (!target) return next();
  if (request.method !== "GET" && request.method !== "HEAD") return response.sendStatus(405);
  // `response.redirect` would encode the URL again.
  const location = [target, ...query].join("?");
  response.set({ Location: location, "Cache-Control": "no-store" }).status(308).end();
});

export default router;
