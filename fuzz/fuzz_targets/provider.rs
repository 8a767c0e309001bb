//! The differential test: whatever a provider answers, a callback is not called registered while a
//! control misbehaves, nor on silence, nor on a refusal.

#![no_main]

use callback_edge::outbound::{Answer, Fault};
use callback_edge::preflight::differential::{Examination, Finding, Inquiry, Next, State};
use callback_edge_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use url::{Position, Url};

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const ASKED: &str = "https://p.example/auth?a=b";
const CANARY: &str = "CANARY-7f3a";
const TEMPLATES: [&str; 6] = ["anything", "google-mail", "okta", "xero", "stripe", "atlassian"];

type Said = Result<Answer, Fault>;

/// Whether it redirects to the redirect URI that was asked with.
fn bounces(said: &Said, uri: &str) -> bool {
    let Ok(answer) = said else { return false };
    let location = answer.headers.get("location").and_then(|it| it.to_str().ok());
    let location = location.and_then(|it| Url::parse(ASKED).ok()?.join(it).ok());
    answer.status.is_redirection()
        && location.is_some_and(|it| {
            let uri = Url::parse(uri).expect("a URL");
            it[Position::BeforeScheme..Position::AfterPath]
                .replace(&it[Position::BeforeUsername..Position::BeforeHost], "")
                == uri[..Position::AfterPath]
        })
}

/// Whether nothing can be concluded from it, whoever the provider is.
fn is_silent(said: &Said) -> bool {
    !said.as_ref().is_ok_and(|answer| answer.status.as_u16() != 429)
}

fn denies(said: &Said) -> bool {
    said.as_ref().is_ok_and(|it| it.body.windows(21).any(|at| at == b"redirect_uri_mismatch"))
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let template = input.one(&TEMPLATES);
    let inquiry = Inquiry {
        template: template.into(),
        url: ASKED.into(),
        current: OLD.into(),
        old: OLD.into(),
        new: NEW.into(),
        prompt_none: None,
    };
    // Answers are drawn from four, so that some are alike.
    let pool: [&[u8]; 4] = std::array::from_fn(|_| {
        let before = input.0;
        let _ = input.answer(str::to_owned);
        &before[..before.len() - input.0.len()]
    });
    let mut examination = Examination::new(&inquiry);
    let mut asked: Vec<(String, Said, usize)> = Vec::new();
    let Finding { state, evidence } = loop {
        match examination.wants() {
            Next::Is(finding) => break finding,
            Next::Ask { redirect_uri, state } => {
                let pick = usize::from(input.byte()) % pool.len();
                let said = Input(pool[pick]).answer(|text| {
                    text.replace("$U", &redirect_uri).replace("$S", &state).replace("$C", CANARY)
                });
                examination.take(&said);
                asked.push((redirect_uri, said, pick));
            }
        }
        assert!(asked.len() <= 8, "it asks for ever");
    };
    assert!(!evidence.contains('?') || !evidence.contains(CANARY), "{evidence}");
    if state != Ok(State::Registered) {
        return;
    }
    let silent = asked.iter().any(|(_, said, _)| is_silent(said));
    assert!(!silent && asked.len() >= 4, "{evidence}");
    for (uri, said, pick) in &asked {
        if uri == NEW {
            assert!(!denies(said), "{evidence}");
        } else if uri != OLD {
            assert!(!bounces(said, uri), "a control is redirected to: {evidence}");
            // What does not depend on the redirect URI, and is said of a control, is said of the
            // new one for the same reason.
            let new = asked.iter().filter(|(uri, ..)| uri == NEW);
            let same = new.filter(|(_, said, _)| !bounces(said, NEW)).any(|(.., it)| it == pick);
            assert!(!same, "a control is answered as the new one: {evidence}");
        }
    }
});
