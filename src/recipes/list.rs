/// A directory of `deploy/recipes`.
pub(super) struct Directory {
    pub(super) id: &'static str,
    /// Its `recipe.toml`.
    pub(super) about: &'static str,
    /// The name and the text of every other file.
    pub(super) templates: &'static [(&'static str, &'static str)],
}

macro_rules! directories {
    ($($id:literal: [$($file:literal),*])*) => {
        /// Every recipe, in the order of the list that users see.
        pub(super) const DIRECTORIES: &[Directory] = &[$(Directory {
            id: $id,
            about: include_str!(concat!("../../deploy/recipes/", $id, "/recipe.toml")),
            templates: &[$((
                $file,
                include_str!(concat!("../../deploy/recipes/", $id, "/", $file)),
            )),*],
        }),*];
    };
}

// A test compares this list with the directories.
directories! {
    "nginx": ["nango-callback.conf"]
    "apache": ["nango-callback.conf"]
    "haproxy": ["nango-callback.cfg"]
    "caddy": ["nango-callback.caddy"]
    "lighttpd": ["nango-callback.conf"]
    "traefik": ["nango-callback.yaml"]
    "envoy": ["nango-callback.yaml"]

    "ingress-nginx": ["nango-callback.yaml"]
    "gateway-api": ["nango-callback.yaml"]

    "express": ["nango-callback.mjs"]
    "nestjs": ["nango-callback.ts"]
    "fastify": ["nango-callback.ts"]
    "koa": ["nango-callback.ts"]
    "hono": ["nango-callback.ts"]
    "nextjs": ["route.ts"]
    "nuxt": ["redirect.ts"]
    "sveltekit": ["server.ts"]
    "react-router": ["nango-callback.ts"]

    "flask": ["nango_callback.py"]
    "django": ["nango_callback.py"]
    "fastapi": ["nango_callback.py"]
    "aiohttp": ["nango_callback.py"]

    "rails": ["nango_callback.rb"]
    "rack": ["nango_callback.rb"]

    "php": ["nango-callback.php"]
    "laravel": ["NangoCallbackController.php", "nango_callback.php"]
    "symfony": ["NangoCallbackController.php", "nango_callback.yaml"]

    "go": ["nango_callback.go"]
    "axum": ["nango_callback.rs"]

    "cloudflare-worker": ["nango-callback.js", "wrangler.toml"]
    "cloudflare-rule": ["rule.json"]
    "cloudfront": ["nango-callback.js"]
    "lambda": ["nango-callback.mjs"]
    "vercel": ["middleware.js"]
    "netlify": ["nango-callback.js"]
    "gcp": ["url-map.yaml"]
    "alb": []
}
