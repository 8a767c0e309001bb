//! Application frameworks. The applications are in `apps/`; each has the middleware that changes redirects.

use super::{Case, browser_signs_in_through, verify};
use crate::foreign::servers::next_in;
use crate::peer::{Peer, run, script, tools};
use std::fs;
use std::path::Path;

const TS: &str = "nango-callback.ts";
const PYTHON: &str = "nango_callback.py";
const RUBY: &str = "nango_callback.rb";
/// The query with the encoding of the platform, and raw bytes that the server refuses.
const ENCODES: &[&str] = &["redirect.encoding"];

#[rustfmt::skip]
const NODE: &[Case] = &[
    Case {
        place: "express",
        start: |dir| node(dir, "express.mjs"),
        warns: &[],
        wrong: &[
            ("nango-callback.mjs", "[req.originalUrl.replace(/^[^?]*\\??/, \"\"), form && req.body].filter(Boolean).join(\"&\")",
                "new URLSearchParams(req.query)", &["!redirect.encoding", "redirect.parameters"]),
            ("nango-callback.mjs", ".set(\"Cache-Control\", \"no-store\")", "", &["redirect.cache"]),
            ("nango-callback.mjs", "res.removeHeader", "void", &["redirect.coop", "!redirect.referrer"]),
        ],
    },
    Case {
        place: "nestjs",
        start: |dir| node(dir, "nestjs.mjs"),
        warns: &[],
        wrong: &[(TS, "form ? 303 : 308", "302", &["!redirect.status"])],
    },
    Case {
        place: "fastify",
        start: |dir| node(dir, "fastify.mjs"),
        warns: &[],
        wrong: &[(TS, "reply.removeHeader", "reply.getHeaders();//", &["redirect.coop", "!redirect.referrer"])],
    },
    Case {
        place: "koa",
        start: |dir| node(dir, "koa.mjs"),
        warns: &[],
        wrong: &[
            (TS, ", \"Cache-Control\": \"no-store\" });", " });", &["redirect.cache"]),
            (TS, "ctx.remove", "void", &["redirect.coop", "!redirect.referrer"]),
        ],
    },
    Case {
        place: "hono",
        start: |dir| node(dir, "hono.mjs"),
        warns: &[],
        wrong: &[(TS, "c.req.url.replace(/^[^?]*\\??/, \"\")", "new URLSearchParams(c.req.query())",
            &["!redirect.encoding", "redirect.parameters"])],
    },
    Case {
        place: "nuxt",
        start: |dir| node(dir, "nuxt.mjs"),
        warns: &[],
        wrong: &[("server/routes/oauth/callback.ts", "event.path.replace(/^[^?]*\\??/, \"\")",
            "new URLSearchParams(getQuery(event))", &["!redirect.encoding", "redirect.parameters"])],
    },
    Case {
        place: "react-router",
        start: |dir| node(dir, "react-router.mjs"),
        warns: ENCODES,
        wrong: &[("routes/nango-callback.ts", "request.url.replace(/^[^?]*\\??/, \"\")",
            "new URLSearchParams(Object.fromEntries(new URL(request.url).searchParams))", &["redirect.parameters"])],
    },
];

/// Wrong forms in Next.js are among the foreign callbacks, because each needs a build.
const NEXT: &[Case] = &[Case { place: "nextjs", start: next, warns: ENCODES, wrong: &[] }];

#[rustfmt::skip]
const OTHERS: &[Case] = &[
    Case {
        place: "flask",
        start: |dir| python(dir, "flask_app.py"),
        warns: &[],
        wrong: &[(PYTHON, "b\"&\".join(filter(None, parts)).decode(\"latin-1\")",
            "__import__(\"urllib.parse\").parse.urlencode(request.args)", &["!redirect.encoding", "redirect.parameters"])],
    },
    Case {
        place: "django",
        start: |dir| python(dir, "django_app.py"),
        warns: &[],
        wrong: &[
            (PYTHON, "\"&\".join(filter(None, parts))", "request.GET.urlencode()", &["!redirect.encoding"]),
            (PYTHON, "    response[\"Cross-Origin-Opener-Policy\"] = \"unsafe-none\"\n", "", &["redirect.coop"]),
        ],
    },
    Case {
        place: "fastapi",
        start: |dir| python(dir, "fastapi_app.py"),
        warns: &[],
        wrong: &[(PYTHON, "status_code=303 if form else 308", "status_code=307", &["!redirect.status"])],
    },
    Case {
        place: "aiohttp",
        start: |dir| python(dir, "aiohttp_app.py"),
        warns: &["redirect.size"],
        wrong: &[(PYTHON, "request.raw_path.partition(\"?\")[2]", "str(request.url.query_string)", &["redirect.encoding", "redirect.blocked"])],
    },
    Case {
        place: "rack",
        start: |dir| ruby(dir, "rack.ru"),
        warns: &["redirect.size"],
        wrong: &[(RUBY, "env[\"QUERY_STRING\"],", "Rack::Utils.build_query(Rack::Utils.parse_query(env[\"QUERY_STRING\"])),",
            &["!redirect.encoding", "redirect.parameters", "!redirect.blocked"])],
    },
    Case {
        place: "rails",
        start: |dir| ruby(dir, "rails.ru"),
        warns: &["redirect.size"],
        wrong: &[("lib/nango_callback.rb", "form ? 303 : 308", "301", &["!redirect.status"])],
    },
    Case {
        place: "php",
        start: |dir| php(dir, "php.php"),
        warns: &[],
        wrong: &[("nango-callback.php", "[$query, ", "[http_build_query($_GET), ", &["!redirect.encoding", "redirect.parameters"])],
    },
    Case {
        place: "laravel",
        start: |dir| php(dir, "laravel.php"),
        warns: &[],
        wrong: &[
            ("app/Http/Controllers/NangoCallbackController.php", "$request->server('QUERY_STRING', '')",
                "$request->getQueryString()", &["!redirect.encoding", "redirect.parameters"]),
            ("routes/nango_callback.php", "->withoutMiddleware('web')", "", &["!redirect.cookie", "!redirect.form"]),
        ],
    },
    Case {
        place: "symfony",
        start: |dir| php(dir, "symfony.php"),
        warns: &[],
        wrong: &[("src/Controller/NangoCallbackController.php", "$request->server->get('QUERY_STRING', '')",
            "$request->getQueryString()", &["!redirect.encoding", "redirect.parameters"])],
    },
    Case {
        place: "go",
        start: go,
        warns: &[],
        wrong: &[("nango_callback.go", "r.URL.RawQuery, ", "r.URL.Query().Encode(), ", &["redirect.parameters"])],
    },
    Case {
        place: "axum",
        start: axum,
        warns: &[],
        wrong: &[],
    },
];

/// The cases of all tests.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    NODE.iter().chain(NEXT).chain(OTHERS)
}

/// Starts a program in the directory of the recipe, after these lines of a shell. `$APPS` is the
/// directory of the applications, `$MODULES` the packages of npm.
fn start(dir: &Path, lines: &str) -> Peer {
    Peer::application("sh", "start.sh", &format!("set -e\n{lines}"), |command, file| {
        command.env("APPS", script("recipes/apps")).env("MODULES", script("node_modules"));
        command.env("TOOLS", tools()).env("NODE_ENV", "production").current_dir(dir).arg(file);
    })
}

fn node(dir: &Path, app: &str) -> Peer {
    fs::write(dir.join("package.json"), "{\"type\":\"module\"}").unwrap();
    let compile = "ln -sfn \"$MODULES\" node_modules
        find . -name '*.ts' | xargs -r node_modules/.bin/esbuild --outdir=. --outbase=. --log-level=warning";
    start(dir, &format!("{compile}\ncp \"$APPS/{app}\" .\nexec node {app}"))
}

/// Without TypeScript itself, Next.js builds only JavaScript.
fn next(dir: &Path) -> Peer {
    for file in crate::support::files_below(dir) {
        if file.extension().is_some_and(|it| it == "ts") {
            let arguments = [&*file.display().to_string(), "--outdir=."].map(ToOwned::to_owned);
            let esbuild = script("node_modules/.bin/esbuild");
            let parent = file.parent().unwrap();
            let output = run(&esbuild, parent, &arguments.each_ref().map(|it| &**it));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::remove_file(file).unwrap();
        }
    }
    next_in(dir)
}

fn python(dir: &Path, app: &str) -> Peer {
    // Without the cache, a file that changes within a second is compiled again.
    start(
        dir,
        &format!(
            "cp \"$APPS/{app}\" app.py\nexport PYTHONDONTWRITEBYTECODE=1\nexec web-python app.py"
        ),
    )
}

fn ruby(dir: &Path, app: &str) -> Peer {
    let puma = "exec puma --quiet --threads 4 --bind tcp://127.0.0.1:$PORT config.ru";
    start(
        dir,
        &format!(
            "cp \"$APPS/{app}\" config.ru\nexport RACK_ENV=production RAILS_ENV=production\n{puma}"
        ),
    )
}

fn php(dir: &Path, app: &str) -> Peer {
    start(dir, &format!("cp \"$APPS/{app}\" index.php\nexec php -S 127.0.0.1:$PORT index.php"))
}

fn go(dir: &Path) -> Peer {
    let build = "export GO111MODULE=off GOCACHE=\"$TOOLS/go-cache\"\ngo build -o program .";
    start(dir, &format!("cp \"$APPS/main.go\" .\n{build}\nexec ./program"))
}

/// `setup` built the crates.
fn axum(dir: &Path) -> Peer {
    let build = "cp -r \"$APPS/axum/.\" .\ncp nango_callback.rs src/
        CARGO_TARGET_DIR=\"$TOOLS/axum\" \"$CARGO\" build --quiet --locked\ncp \"$TOOLS/axum/debug/app\" program";
    let cargo = Path::new(env!("CARGO"));
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"),
        std::path::PathBuf::from,
    );
    let build = format!(
        "export CARGO_HOME={} RUSTC={} CARGO={}\n{build}",
        home.display(),
        cargo.with_file_name("rustc").display(),
        cargo.display()
    );
    start(dir, &format!("{build}\nexec ./program"))
}

#[test]
fn frameworks_for_node_pass_and_their_wrong_forms_are_reported() {
    verify(NODE);
}

#[test]
fn next_js_passes() {
    verify(NEXT);
}

#[test]
fn other_frameworks_pass_and_their_wrong_forms_are_reported() {
    verify(OTHERS);
}

#[test]
fn a_browser_signs_in_through_frameworks() {
    for (place, modes) in [
        ("express", &[("query", 308), ("form_post", 303)]),
        ("nextjs", &[("query", 308), ("form_post", 303)]),
        ("fastapi", &[("query", 308), ("form_post", 303)]),
    ] {
        browser_signs_in_through(cases().find(|case| case.place == place).unwrap(), modes);
    }
}
