//! The pictures in `.github/pictures` show the output of the program.

use crate::fakes::{Act, Authority, CertificateSpec, Reply, behaviour, correct, nango, plain, tls};
use crate::support::{command, matches_file, on_a_terminal, picture};

const CALLBACK: &str = "auth.example.com";
const NANGO: &str = "api.nango.dev";

/// A server that decodes the query and rebuilds it, as many do.
#[tokio::test]
async fn the_picture_shows_a_failing_check() {
    let authority = Authority::new("ours");
    let config = |name: &str| {
        let names = vec![name.to_owned()];
        authority
            .issue(CertificateSpec { names, ..CertificateSpec::default() })
            .config(&["h2", "http/1.1"])
    };
    let callback = behaviour(|heard| {
        let correct = correct(&format!("https://{NANGO}"), heard);
        let rebuilt = correct.location().replace('%', "%25");
        Act::Reply(correct.to(rebuilt))
    });
    let to_https = behaviour(|heard| {
        let query = heard.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let location = format!("https://{CALLBACK}{}{query}", heard.path);
        Act::Reply(Reply::new(308).with("location", location))
    });
    let servers = [
        (CALLBACK, 443, tls(config(CALLBACK), callback).await),
        (CALLBACK, 80, plain(to_https).await),
        (NANGO, 443, tls(config(NANGO), behaviour(nango)).await),
    ];

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let typed = format!("callback-edge check https://{CALLBACK}/oauth/callback");
    let mut check = command(dir.path());
    // The options that lead to the test servers are not part of the picture.
    check.args(typed.split(' ').skip(1)).args(["--ca", "ca.pem"]);
    for (name, port, server) in servers {
        check.args(["--connect-to", &format!("{name}:{port}:{server}")]);
    }
    let (status, output) = tokio::task::spawn_blocking(|| on_a_terminal(check, 80)).await.unwrap();
    assert_eq!(status.code(), Some(1), "{output}");
    // Nor is what follows from these options.
    let overridden =
        ["3 passed; 1 not run: the addresses are overridden", "1 of 47", ", 1 not run"];
    assert!(overridden.iter().all(|part| output.contains(part)), "{output}");
    let output = overridden
        .into_iter()
        .zip(["4 passed", "1 of 48", ""])
        .fold(output, |output, (from, to)| output.replace(from, to));
    matches_file(".github/pictures/check.svg", &picture(&typed, &output))
        .unwrap_or_else(|it| panic!("{it}"));
}
