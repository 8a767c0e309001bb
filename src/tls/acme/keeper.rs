//! One name's certificate, kept for ever.

use super::account;
use super::board::Standing;
use super::client::Client;
use super::clock::{moment, now};
use super::context::{Context, certificate_file};
use super::failure::Failure;
use super::journal::{Journal, Window};
use super::renewal_info::{ari_text, ask_for_window};
use super::schedule;
use crate::observe::{AcmeFailure as Reason, AcmeStep as Step, Label};
use crate::tls::files::Certificate;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest sleep. The clock on the wall may be set meanwhile.
const LOOK: u64 = 60;

/// How long a whole order may take, all waiting included.
const ORDER: Duration = Duration::from_mins(15);

/// When to ask for the window again after the directory did not tell.
const WINDOW_FAILED: u64 = 60 * 60;

/// Sees to one name.
///
/// Each name has an order and a certificate of its own: a name whose DNS is wrong then fails by
/// itself, validations are limited for each name anyway, and addresses, which authorities certify
/// under other profiles, need no rule of their own.
pub(super) struct Keeper {
    pub(super) name: Box<str>,
    pub(super) context: Arc<Context>,
    pub(super) journal: Journal,
    pub(super) current: Option<Certificate>,
    /// Own tests in a row that could not get through.
    pub(super) unreachable: u32,
    /// A certificate that is in use and could not be written.
    unsaved: Option<Vec<u8>>,
    /// What went wrong last.
    trouble: Option<Failure>,
}

impl Keeper {
    /// Reads what is known of the name. Only the owner of the folder does. Blocks.
    pub(super) fn new(name: &str, context: &Arc<Context>) -> Self {
        let folder = &context.folder;
        let journal = match folder.read(&journal_file(name)) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|_| {
                // The words of the parser may quote a key.
                folder.set_aside(&journal_file(name), "it is not a journal");
                Journal::default()
            }),
            Ok(None) => Journal::default(),
            Err(error) => {
                tracing::error!(
                    event = "acme_state_unreadable",
                    domain = name,
                    cause = %error,
                    hint = "let this process read the files in `tls.acme.state_dir`",
                );
                Journal::default()
            }
        };
        let current = match context.read_certificate(name) {
            Ok(certificate) => certificate,
            Err(cause) => {
                folder.set_aside(&certificate_file(name), &cause);
                None
            }
        };
        let mut keeper = Self {
            name: name.into(),
            context: Arc::clone(context),
            journal,
            current,
            unreachable: 0,
            unsaved: None,
            trouble: None,
        };
        keeper.reconcile();
        keeper
    }

    /// Makes certificate and journal agree, whichever was written last before a crash.
    fn reconcile(&mut self) {
        let Some(current) = &self.current else { return };
        let file = self.context.folder.read(&certificate_file(&self.name));
        let file = file.ok().flatten().unwrap_or_default();
        if let Some(pending) = &self.journal.pending
            && file.starts_with(pending.key.as_bytes())
        {
            // The order came to its end; only that was not written any more.
            let directory = pending.directory.clone();
            self.journal.issued(now(), lifetime(current), &directory);
        }
        if self.journal.directory.is_none() {
            // Whoever issued it, it is there: no reason to order another.
            self.journal.directory =
                self.context.settings.directories.first().map(ToString::to_string);
        }
        // A restart asks anew.
        if let Some(window) = &mut self.journal.window {
            window.ask_at = 0;
        }
        self.context.show(&self.name, current);
    }

    /// Orders when it is time, and never ends.
    pub(super) async fn run(mut self) {
        loop {
            let moment = now();
            self.journal.steady(moment);
            if self.unsaved.is_some() && self.save().await.is_ok() {
                tracing::info!(event = "acme_state_saved", domain = &*self.name);
            }
            self.look_at_window(moment).await;
            let due = self.due(moment);
            self.tell(due);
            if due > moment {
                tokio::time::sleep(Duration::from_secs((due - moment).min(LOOK))).await;
            } else {
                self.attempt().await;
            }
        }
    }

    /// When the next order begins.
    fn due(&self, now: u64) -> u64 {
        let directories = &self.context.settings.directories;
        let at = self.journal.next(self.wanted(now), now);
        // When none may be asked, nothing is tried.
        let held = directories.iter().map(|directory| self.journal.held(directory)).min();
        at.max(held.unwrap_or_default())
    }

    /// When a certificate is wanted, whatever stands in the way of an order.
    fn wanted(&self, now: u64) -> u64 {
        let directories = &self.context.settings.directories;
        let issuer = self.journal.directory.as_deref();
        match &self.current {
            // One from a directory that is no longer named, such as a staging one, is no good.
            Some(certificate) if directories.iter().any(|it| Some(&**it) == issuer) => {
                let window = self.journal.window.as_ref();
                let span =
                    window.filter(|it| Some(&it.certificate) == ari_text(certificate).as_ref());
                let (from, to) = validity(certificate);
                schedule::renew_at(from, to, span.and_then(|it| it.span), share_of(certificate))
            }
            _ => now,
        }
    }

    /// Asks one directory after the other.
    async fn attempt(&mut self) {
        let directories = self.context.settings.directories.clone();
        let mut costly = false;
        for directory in &directories {
            if self.journal.held(directory) > now() {
                continue;
            }
            // On the heap: it is too large to be handed from hand to hand on a worker's stack.
            let ordered = tokio::time::timeout(ORDER, Box::pin(self.order(directory))).await;
            let outcome = ordered.unwrap_or_else(|_| {
                Err(Failure::new(Reason::Directory, "the order came to no end"))
            });
            let Err(failure) = outcome else {
                self.trouble = None;
                return;
            };
            if let Some(seconds) = failure.retry_after {
                self.journal.hold(directory, now(), seconds);
            }
            if failure.reason == Reason::Account && failure.forgotten {
                let cause = "the directory does not know the account any more";
                account::set_aside(&self.context, directory, cause).await;
            }
            costly |= failure.costly;
            let elsewhere = failure.concerns_the_directory();
            self.failed(directory, failure);
            if !elsewhere {
                break;
            }
        }
        self.journal.failed(now(), costly, random_share());
        let _ = self.save().await;
    }

    fn failed(&mut self, directory: &str, failure: Failure) {
        let context = &self.context;
        context.metrics.acme_failures.count(failure.reason);
        let valid =
            self.current.as_ref().is_some_and(|it| it.invalid_at(SystemTime::now()).is_none());
        let hint = failure.hint(&self.name, context.settings.challenge);
        let (domain, reason, cause) = (&*self.name, failure.reason.value(), &*failure.cause);
        if valid {
            tracing::warn!(
                event = "acme_failed",
                domain,
                directory,
                reason,
                cause,
                hint,
                certificate = "the one before it is used to its end",
            );
        } else {
            tracing::error!(event = "acme_failed", domain, directory, reason, cause, hint);
        }
        self.trouble = Some(failure);
    }

    /// Says what is odd, and goes on.
    pub(super) fn warn(&self, failure: &Failure, hint: &str) {
        tracing::warn!(
            event = "acme_trial_inconclusive",
            domain = &*self.name,
            reason = failure.reason.value(),
            cause = failure.cause,
            hint,
        );
    }

    /// A step was taken.
    pub(super) fn took(&self, step: Step, directory: &str) {
        self.context.took(step, &self.name, directory);
    }

    /// Uses what the directory issued from this moment on, and keeps it.
    pub(super) async fn install(
        &mut self,
        directory: &str,
        key: &str,
        chain: &str,
    ) -> Result<(), Failure> {
        let pem = format!("{key}{chain}").into_bytes();
        let bad = |why: &str| {
            Failure::new(Reason::Other, format_args!("what was issued is of no use: {why}"))
                .costly()
        };
        let certificate =
            self.context.parse(&self.name, pem.clone()).map_err(|cause| bad(&cause))?;
        self.journal.issued(now(), lifetime(&certificate), directory);
        tracing::info!(
            event = "acme_certificate",
            domain = &*self.name,
            directory,
            not_after = %moment(validity(&certificate).1),
        );
        self.context.show(&self.name, &certificate);
        self.current = Some(certificate);
        self.unsaved = Some(pem);
        if let Err(failure) = self.save().await {
            // It is in use, and written as soon as that can be; until then the journal on disk
            // still has the order with its key, from which a restart gets it again.
            self.failed(directory, failure);
        }
        Ok(())
    }

    /// Writes the certificate, if it is not yet, and then the journal: in this order, so that a
    /// crash between the two costs nothing.
    pub(super) async fn save(&mut self) -> Result<(), Failure> {
        let certificate = self.unsaved.clone().map(|pem| (certificate_file(&self.name), pem));
        let text = serde_json::to_vec_pretty(&self.journal)
            .map_err(|_| Failure::new(Reason::State, "the journal cannot be written"))?;
        let journal = (journal_file(&self.name), text);
        let written = self.context.folder.blocking(move |folder| {
            let files = certificate.into_iter().chain([journal]);
            files.into_iter().try_for_each(|(name, bytes)| folder.write(&name, &bytes))
        });
        written.await.map_err(|error| Failure::state(&error))?;
        self.unsaved = None;
        Ok(())
    }

    fn tell(&self, due: u64) {
        self.context.metrics.acme_next(&self.name, due);
        let trouble = self.trouble.as_ref();
        self.context.board.put(
            &self.name,
            Standing {
                not_after: self.current.as_ref().map(|certificate| validity(certificate).1),
                next: due,
                trouble: trouble.map(|failure| {
                    let hint = failure.hint(&self.name, self.context.settings.challenge);
                    (format!("{}: {}", failure.reason.value(), failure.cause), hint)
                }),
            },
        );
    }

    /// Asks the directory when to renew (RFC 9773), if it tells that. A failure changes nothing.
    ///
    /// Not by the library: that fails without `Retry-After`, which directories leave out.
    async fn look_at_window(&mut self, now: u64) {
        let Some(certificate) = self.current.as_ref().and_then(ari_text) else { return };
        let known = self.journal.window.take().filter(|it| it.certificate == certificate);
        let mut window = known.unwrap_or_else(|| Window { certificate, ..Window::default() });
        let directory = self.journal.directory.clone();
        let configured = &self.context.settings.directories;
        let directory = directory.filter(|it| configured.iter().any(|known| **known == **it));
        if let Some(directory) = directory.filter(|_| window.ask_at <= now) {
            let client = Client::new(self.context.outbound.clone());
            match ask_for_window(&client, &directory, &window.certificate).await {
                Ok((span, again)) => {
                    window.ask_at = now + again;
                    if span.is_some() {
                        self.took(Step::RenewalInfo, &directory);
                    }
                    if let (Some((from, to)), true) = (span, span != window.span) {
                        tracing::info!(
                            event = "acme_renewal_window",
                            domain = &*self.name,
                            from = %moment(from),
                            to = %moment(to),
                        );
                    }
                    window.span = span;
                }
                Err(cause) => {
                    window.ask_at = now + WINDOW_FAILED;
                    tracing::debug!(
                        event = "acme_renewal_window_unknown",
                        domain = &*self.name,
                        cause = Failure::new(Reason::Directory, cause).cause,
                    );
                }
            }
            self.journal.window = Some(window);
            let _ = self.save().await;
        } else {
            self.journal.window = Some(window);
        }
    }
}

fn journal_file(name: &str) -> String {
    format!("{}.json", name.trim_matches(['[', ']']))
}

fn validity(certificate: &Certificate) -> (u64, u64) {
    let time = |seconds: i64| u64::try_from(seconds).unwrap_or_default();
    (time(certificate.not_before), time(certificate.not_after))
}

fn lifetime(certificate: &Certificate) -> u64 {
    let (from, to) = validity(certificate);
    to.saturating_sub(from)
}

/// A number from 0 to 1 that is the certificate's own.
fn share_of(certificate: &Certificate) -> f64 {
    share(certificate.content)
}

fn random_share() -> f64 {
    let mut bytes = [0; 8];
    // Without randomness, without spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    share(u64::from_ne_bytes(bytes))
}

fn share(number: u64) -> f64 {
    f64::from(u32::try_from(number >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}
