//! The differential test: a callback is never reported as registered if a control is accepted, a reply
//! is missing, or the callback is rejected.

#![no_main]

use callback_edge::outbound::{Fault, Response};
use callback_edge::preflight::differential::{Action, Finding, ProbeRequest, ProbeSequence, State};
use callback_edge_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use url::{Position, Url};

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const PROBED: &str = "https://p.example/auth?a=b";
const CANARY: &str = "CANARY-7f3a";
const TEMPLATES: [&str; 6] = ["anything", "google-mail", "okta", "xero", "stripe", "atlassian"];

type Reply = Result<Response, Fault>;

/// Whether it redirects to the redirect URI of the probe.
fn redirects_back(reply: &Reply, uri: &str) -> bool {
    let Ok(response) = reply else { return false };
    let location = response.headers.get("location").and_then(|it| it.to_str().ok());
    let location = location.and_then(|it| Url::parse(PROBED).ok()?.join(it).ok());
    response.status.is_redirection()
        && location.is_some_and(|it| {
            let uri = Url::parse(uri).expect("a URL");
            it[Position::BeforeScheme..Position::AfterPath]
                .replace(&it[Position::BeforeUsername..Position::BeforeHost], "")
                == uri[..Position::AfterPath]
        })
}

/// Whether it is inconclusive for any provider.
fn is_inconclusive(reply: &Reply) -> bool {
    !reply.as_ref().is_ok_and(|response| response.status.as_u16() != 429)
}

fn rejects(reply: &Reply) -> bool {
    reply.as_ref().is_ok_and(|it| it.body.windows(21).any(|at| at == b"redirect_uri_mismatch"))
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let template = input.one(&TEMPLATES);
    let probe_request = ProbeRequest {
        template: template.into(),
        url: PROBED.into(),
        current: OLD.into(),
        old: OLD.into(),
        new: NEW.into(),
        prompt_none: None,
    };
    // Replies are selected from four, so that some are identical.
    let pool: [&[u8]; 4] = std::array::from_fn(|_| {
        let before = input.0;
        let _ = input.response(str::to_owned);
        &before[..before.len() - input.0.len()]
    });
    let mut sequence = ProbeSequence::new(&probe_request);
    let mut sent: Vec<(String, Reply, usize)> = Vec::new();
    let Finding { state, evidence } = loop {
        match sequence.next_action() {
            Action::Finish(finding) => break finding,
            Action::Send { redirect_uri, state, .. } => {
                let pick = usize::from(input.byte()) % pool.len();
                let reply = Input(pool[pick]).response(|text| {
                    text.replace("$U", &redirect_uri).replace("$S", &state).replace("$C", CANARY)
                });
                sequence.record(&reply);
                sent.push((redirect_uri, reply, pick));
            }
        }
        assert!(sent.len() <= 13, "it sends probes without end");
    };
    assert!(!evidence.contains('?') || !evidence.contains(CANARY), "{evidence}");
    if state != Ok(State::Registered) {
        return;
    }
    let inconclusive = sent.iter().any(|(_, reply, _)| is_inconclusive(reply));
    assert!(!inconclusive && sent.len() == 12, "{evidence}");
    for (uri, reply, pick) in &sent {
        if uri == NEW {
            assert!(!rejects(reply), "{evidence}");
        } else if uri != OLD {
            assert!(!redirects_back(reply, uri), "a control is redirected to: {evidence}");
            // A reply to a control that does not depend on the redirect URI proves nothing when it is
            // also the reply to the new callback.
            let new = sent.iter().filter(|(uri, ..)| uri == NEW);
            let same =
                new.filter(|(_, reply, _)| !redirects_back(reply, NEW)).any(|(.., it)| it == pick);
            assert!(!same, "a control has the same reply as the new callback: {evidence}");
        }
    }
});
