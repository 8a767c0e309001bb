//! Servers and frameworks that a foreign callback may run on, each started from its source or
//! configuration. All listen on a port of loopback, which `address("plain")` returns.

use crate::peer::{Peer, search_path, tools};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Node program that listens on `process.env.PORT`. The packages of npm are available.
pub(crate) fn node(source: &str) -> Peer {
    Peer::application("node", "app.mjs", source, |command, file| {
        command.env("NODE_ENV", "production").arg(file);
    })
}

/// A Python program that listens on the port in `$PORT`. aiohttp, Django, Flask, `FastAPI`,
/// Starlette and uvicorn are available.
pub(crate) fn python(source: &str) -> Peer {
    Peer::application("web-python", "app.py", source, |command, file| {
        command.env("PYTHONUNBUFFERED", "1").arg(file);
    })
}

/// A PHP script that responds to every request, in the server of PHP itself.
pub(crate) fn php(source: &str) -> Peer {
    Peer::application("sh", "index.php", source, |command, file| {
        command.args(["-c", "exec php -S 127.0.0.1:$PORT \"$0\""]).arg(file);
    })
}

/// A Go program of one file that listens on the port in `$PORT`. Only the standard library is
/// available.
pub(crate) fn go(source: &str) -> Peer {
    Peer::application("sh", "main.go", source, |command, file| {
        // Without the cache, each build compiles what the standard library leaves to the program.
        command.env("GOCACHE", tools().join("go-cache")).env("GO111MODULE", "off");
        command.args(["-c", "go build -o program \"$0\" && exec ./program"]).arg(file);
    })
}

/// A `config.ru` of Rack, in Puma.
pub(crate) fn rack(source: &str) -> Peer {
    Peer::application("sh", "config.ru", source, |command, file| {
        let puma = "exec puma --quiet --threads 4 --bind tcp://127.0.0.1:$PORT \"$0\"";
        command.env("RACK_ENV", "production").args(["-c", puma]).arg(file);
    })
}

/// lighttpd. The configuration needs `server.port = {port:plain}` and no other basic setting.
pub(crate) fn lighttpd(configuration: &str) -> Peer {
    let basic = "server.bind = \"127.0.0.1\"\nserver.document-root = \"{dir}\"\n";
    Peer::serve("lighttpd", "lighttpd.conf", &format!("{basic}{configuration}"), |command, file| {
        command.args(["-D", "-f"]).arg(file);
    })
}

/// Apache. The configuration needs `Listen 127.0.0.1:{port:plain}`; the modules for redirects and
/// response headers are loaded.
pub(crate) fn apache(configuration: &str) -> Peer {
    let modules = ["mpm_event", "authz_core", "alias", "headers", "rewrite", "setenvif", "env"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let basic = "ServerRoot {dir}\nServerName localhost\nPidFile {dir}/apache.pid\nErrorLog /dev/stderr\n\
                 Mutex file:{dir} default\n";
    let configuration = format!("{}{basic}{configuration}", modules.concat());
    Peer::serve("apache2", "apache2.conf", &configuration, |command, file| {
        // One process, so that none remains after a kill.
        command.args(["-X", "-f"]).arg(file);
    })
}

/// A Next.js application of these files, built for production. A build takes half a minute, so it
/// stays in `.tools` until a file changes; prefer one application with several paths.
pub(crate) fn next(files: &[(&str, &str)]) -> Peer {
    next_start(&next_build(files))
}

/// As [`next`], of the files in a directory.
pub(crate) fn next_in(dir: &Path) -> Peer {
    let files = files_of(dir);
    let files: Vec<_> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    next(&files)
}

fn next_start(built: &Path) -> Peer {
    Peer::application("node", "start.mjs", "", |command, _| {
        command.env("NODE_ENV", "production").env("NEXT_TELEMETRY_DISABLED", "1");
        command.current_dir(built).arg("node_modules/next/dist/bin/next");
        command.args(["start", "--hostname", "127.0.0.1"]);
    })
}

fn next_build(files: &[(&str, &str)]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    let packages = tools().parent().unwrap().join("node_modules");
    let version = fs::read_to_string(packages.join("next/package.json")).unwrap();
    (files, version).hash(&mut hasher);
    let root = tools().join("next");
    fs::create_dir_all(&root).unwrap();
    let dir = root.join(format!("{:016x}", hasher.finish()));
    // Tests run in parallel, also those of several suites.
    let lock = File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if dir.join("done").exists() {
        return dir;
    }
    let _ = fs::remove_dir_all(&dir);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink(&packages, dir.join("node_modules")).unwrap();
    let mut build = Command::new("node");
    build.current_dir(&dir).env_clear().env("PATH", search_path()).env("HOME", &dir);
    build.env("NEXT_TELEMETRY_DISABLED", "1").stdin(Stdio::null());
    // The other builder does not follow the link to the packages.
    build.args(["node_modules/next/dist/bin/next", "build", "--webpack"]);
    let output = build.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "next build: {text}");
    fs::write(dir.join("done"), "").unwrap();
    dir
}

/// Every file below a directory, with its path there.
pub(crate) fn files_of(dir: &Path) -> Vec<(String, String)> {
    let files = crate::support::files_below(dir).into_iter();
    let relative = |path: PathBuf| {
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.map(relative).collect()
}
