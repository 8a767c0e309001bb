import express from "express";

export const nangoCallback = express.Router();

for (const [path, target] of Object.entries({
  // @EACH@
  "@PATH@": "@TARGET@",
  // @END@
})) {
  nangoCallback.all(path, express.text({ type: "application/x-www-form-urlencoded" }), (req, res) => {
    const form = req.method === "POST" && typeof req.body === "string";
    if (!form && req.method !== "GET" && req.method !== "HEAD") return void res.sendStatus(405);
    // The query as received: `req.query` would have to be encoded again, which changes it.
    const query = [req.originalUrl.replace(/^[^?]*\??/, ""), form && req.body].filter(Boolean).join("&");
    // `res.redirect` would encode the URL again.
    res.set("Location", query ? `${target}?${query}` : target).set("Cache-Control", "no-store");
    // Helmet sets both, and the first one separates the popup from the page that opened it.
    res.removeHeader("Cross-Origin-Opener-Policy");
    res.removeHeader("Referrer-Policy");
    res.status(form ? 303 : 308).end();
  });
}
