//! Obtains and renews the certificate of one domain.

use super::account;
use super::client::Client;
use super::clock::{now, timestamp};
use super::context::{Context, certificate_file};
use super::failure::Failure;
use super::journal::{Journal, Window};
use super::renewal_info::{ari_text, request_window};
use super::schedule;
use super::status::CertificateStatus;
use crate::observe::{AcmeFailure as Reason, AcmeStep as Step, Label};
use crate::tls::files::Certificate;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The longest sleep, in seconds, because the wall clock may be set meanwhile.
const MAX_SLEEP: u64 = 60;

/// The time limit of an order, including all waits.
const ORDER_TIMEOUT: Duration = Duration::from_mins(15);

/// When to retry a failed request for the renewal window, in seconds.
const WINDOW_RETRY: u64 = 60 * 60;

/// Obtains and renews the certificate of one domain.
///
/// Each domain has an order and a certificate of its own: wrong DNS of one does not block the others,
/// CAs limit validations by domain anyway, and addresses, for which CAs require other profiles, need
/// no special case.
pub(super) struct Renewer {
    pub(super) name: Box<str>,
    pub(super) context: Arc<Context>,
    pub(super) journal: Journal,
    pub(super) current: Option<Certificate>,
    /// Consecutive trials without a response.
    pub(super) unreachable: u32,
    /// A certificate that is in use but not yet written.
    unsaved: Option<Vec<u8>>,
    /// The last failure, until an order succeeds.
    last_failure: Option<Failure>,
    /// When the first of the last failures happened, which no success followed.
    failing_since: Option<Instant>,
}

impl Renewer {
    /// Reads the stored state of the domain. Only the owner of the state directory does so. Blocks.
    pub(super) fn new(name: &str, context: &Arc<Context>) -> Self {
        let state_dir = &context.state_dir;
        let journal = match state_dir.read(&journal_file(name)) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|_| {
                // The parser's error text may quote a key.
                state_dir.set_aside(&journal_file(name), "not a valid journal");
                Journal::default()
            }),
            Ok(None) => Journal::default(),
            Err(error) => {
                tracing::error!(
                    event = "acme_state_unreadable",
                    domain = name,
                    cause = %error,
                    hint = "give this process read permission for the files in `tls.acme.state_dir`",
                );
                Journal::default()
            }
        };
        let current = match context.read_certificate(name) {
            Ok(certificate) => certificate,
            Err(cause) => {
                state_dir.set_aside(&certificate_file(name), &cause);
                None
            }
        };
        let mut renewer = Self {
            name: name.into(),
            context: Arc::clone(context),
            journal,
            current,
            unreachable: 0,
            unsaved: None,
            last_failure: None,
            failing_since: None,
        };
        renewer.reconcile();
        renewer
    }

    /// Makes the journal consistent with the certificate, whichever was written last before a crash.
    fn reconcile(&mut self) {
        let Some(current) = &self.current else { return };
        let file = self.context.state_dir.read(&certificate_file(&self.name));
        let file = file.ok().flatten().unwrap_or_default();
        if let Some(pending) = &self.journal.pending
            && file.starts_with(pending.key.as_bytes())
        {
            // The order succeeded, but the journal was not written.
            let directory = pending.directory.clone();
            self.journal.issued(now(), lifetime(current), &directory);
        }
        if self.journal.directory.is_none() {
            // The issuer is not known, but there is a certificate: no new one is needed.
            self.journal.directory =
                self.context.settings.directories.first().map(ToString::to_string);
        }
        // After a restart the window is requested immediately.
        if let Some(window) = &mut self.journal.window {
            window.request_at = 0;
        }
        self.context.serve(&self.name, current);
    }

    /// Orders a certificate whenever one is due. Never returns.
    pub(super) async fn run(mut self) {
        loop {
            let now = now();
            self.journal.normalize(now);
            if self.unsaved.is_some() && self.save().await.is_ok() {
                tracing::info!(event = "acme_state_saved", domain = &*self.name);
            }
            self.update_window(now).await;
            let due = self.due(now);
            self.publish(due);
            if due > now {
                tokio::time::sleep(Duration::from_secs((due - now).min(MAX_SLEEP))).await;
            } else {
                self.attempt().await;
            }
        }
    }

    /// When the next order is made.
    fn due(&self, now: u64) -> u64 {
        let directories = &self.context.settings.directories;
        let at = self.journal.next(self.wanted(now), now);
        // While every ACME server has sent `Retry-After`, no order is made.
        let retry_after = directories.iter().map(|directory| self.journal.retry_after(directory));
        at.max(retry_after.min().unwrap_or_default())
    }

    /// When a certificate is due, apart from backoff and rate limits.
    fn wanted(&self, now: u64) -> u64 {
        let directories = &self.context.settings.directories;
        let issuer = self.journal.directory.as_deref();
        match &self.current {
            // A certificate of an ACME server that is no longer configured, such as a staging server,
            // is replaced.
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

    /// Tries the ACME servers in order.
    async fn attempt(&mut self) {
        let directories = self.context.settings.directories.clone();
        let mut costly = false;
        let mut last: Option<(&str, Failure)> = None;
        for directory in &directories {
            if self.journal.retry_after(directory) > now() {
                continue;
            }
            if let Some((failed, failure)) = last.take() {
                self.report_failure(failed, failure, now());
            }
            // On the heap: the future is too large to be moved on a worker's stack.
            let ordered =
                tokio::time::timeout(ORDER_TIMEOUT, Box::pin(self.order(directory))).await;
            let outcome = ordered.unwrap_or_else(|_| {
                let minutes = ORDER_TIMEOUT.as_secs() / 60;
                let cause = format_args!("the order did not finish within {minutes} minutes");
                Err(Failure::new(Reason::ServerDown, cause))
            });
            let Err(failure) = outcome else {
                self.last_failure = None;
                self.failing_since = None;
                return;
            };
            if let Some(seconds) = failure.retry_after {
                self.journal.set_retry_after(directory, now(), seconds);
            }
            if failure.reason == Reason::Account && failure.is_unknown {
                let cause = "the ACME server does not know the account";
                account::set_aside(&self.context, directory, cause).await;
            }
            costly |= failure.costly;
            let is_server_specific = failure.is_server_specific();
            last = Some((directory, failure));
            if !is_server_specific {
                break;
            }
        }
        self.journal.failed(now(), costly, random_share());
        if let Some((directory, failure)) = last {
            self.report_failure(directory, failure, self.due(now()));
        }
        let _ = self.save().await;
    }

    /// `retry_at` is the time of the next attempt, which may be one at another ACME server.
    fn report_failure(&mut self, directory: &str, failure: Failure, retry_at: u64) {
        let retry_at = timestamp(retry_at);
        let context = &self.context;
        context.metrics.acme_failures.count(failure.reason);
        let valid =
            self.current.as_ref().is_some_and(|it| it.invalid_at(SystemTime::now()).is_none());
        let hint = failure.log_hint(&self.name, context.settings.challenge);
        let (domain, reason, cause) = (&*self.name, failure.reason.value(), &*failure.cause);
        if valid {
            tracing::warn!(
                event = "acme_failed",
                domain,
                directory,
                reason,
                cause,
                hint,
                %retry_at,
                certificate = "the previous certificate stays in use",
            );
        } else {
            tracing::error!(event = "acme_failed", domain, directory, reason, cause, hint, %retry_at);
        }
        self.last_failure = Some(failure);
        self.failing_since.get_or_insert_with(Instant::now);
    }

    /// Warns that a trial was inconclusive.
    pub(super) fn warn(&self, failure: &Failure, hint: &str) {
        tracing::warn!(
            event = "acme_trial_inconclusive",
            domain = &*self.name,
            reason = failure.reason.value(),
            cause = failure.cause,
            hint,
        );
    }

    /// Counts and logs a step.
    pub(super) fn record_step(&self, step: Step, directory: &str) {
        self.context.record_step(step, &self.name, directory);
    }

    /// Puts an issued certificate in use, and stores it.
    pub(super) async fn install(
        &mut self,
        directory: &str,
        key: &str,
        chain: &str,
    ) -> Result<(), Failure> {
        let pem = format!("{key}{chain}").into_bytes();
        let unusable = |why: &str| {
            Failure::new(Reason::Other, format_args!("the issued certificate is unusable: {why}"))
                .costly()
        };
        let certificate =
            self.context.parse(&self.name, pem.clone()).map_err(|cause| unusable(&cause))?;
        self.journal.issued(now(), lifetime(&certificate), directory);
        let failed_for = self.failing_since.take().map(|since| since.elapsed());
        tracing::info!(
            event = "acme_certificate",
            domain = &*self.name,
            directory,
            failed_for_s = failed_for.map(|it| it.as_secs()),
            not_after = %timestamp(validity(&certificate).1),
        );
        self.context.serve(&self.name, &certificate);
        self.current = Some(certificate);
        self.unsaved = Some(pem);
        if let Err(failure) = self.save().await {
            // The certificate is in use, and is written as soon as possible. Until then the journal on
            // disk contains the order with its key, from which a restart obtains it again.
            self.report_failure(directory, failure, now() + MAX_SLEEP);
        }
        Ok(())
    }

    /// Writes the certificate, if it is not written yet, and then the journal. In this order a crash
    /// between the two loses nothing.
    pub(super) async fn save(&mut self) -> Result<(), Failure> {
        let certificate = self.unsaved.clone().map(|pem| (certificate_file(&self.name), pem));
        let text = serde_json::to_vec_pretty(&self.journal)
            .map_err(|_| Failure::new(Reason::State, "cannot serialize the journal"))?;
        let journal = (journal_file(&self.name), text);
        let written = self.context.state_dir.blocking(move |state_dir| {
            let files = certificate.into_iter().chain([journal]);
            files.into_iter().try_for_each(|(name, bytes)| state_dir.write(&name, &bytes))
        });
        written.await.map_err(|error| Failure::state(&error))?;
        self.unsaved = None;
        Ok(())
    }

    /// Publishes the state of the domain in the metrics and in [`AcmeStatus`](super::AcmeStatus).
    fn publish(&self, due: u64) {
        self.context.metrics.set_next_order(&self.name, due);
        let last_failure = self.last_failure.as_ref();
        self.context.acme_status.set(
            &self.name,
            CertificateStatus {
                not_after: self.current.as_ref().map(|certificate| validity(certificate).1),
                next: due,
                last_failure: last_failure.map(|failure| {
                    let hint = failure.hint(&self.name, self.context.settings.challenge);
                    (format!("{}: {}", failure.reason.value(), failure.cause), hint)
                }),
            },
        );
    }

    /// Requests the renewal window (RFC 9773), if the ACME server supports it. A failure changes nothing.
    ///
    /// Not with the library, which fails without `Retry-After`: some servers omit it.
    async fn update_window(&mut self, now: u64) {
        let Some(certificate) = self.current.as_ref().and_then(ari_text) else { return };
        let known = self.journal.window.take().filter(|it| it.certificate == certificate);
        let mut window = known.unwrap_or_else(|| Window { certificate, ..Window::default() });
        let directory = self.journal.directory.clone();
        let configured = &self.context.settings.directories;
        let directory = directory.filter(|it| configured.iter().any(|known| **known == **it));
        if let Some(directory) = directory.filter(|_| window.request_at <= now) {
            let client = Client::new(self.context.outbound.clone());
            match request_window(&client, &directory, &window.certificate).await {
                Ok((span, poll_after)) => {
                    window.request_at = now + poll_after;
                    if span.is_some() {
                        self.record_step(Step::RenewalInfo, &directory);
                    }
                    if let (Some((from, to)), true) = (span, span != window.span) {
                        tracing::info!(
                            event = "acme_renewal_window",
                            domain = &*self.name,
                            from = %timestamp(from),
                            to = %timestamp(to),
                        );
                    }
                    window.span = span;
                }
                Err(cause) => {
                    window.request_at = now + WINDOW_RETRY;
                    tracing::debug!(
                        event = "acme_renewal_window_unknown",
                        domain = &*self.name,
                        cause = Failure::new(Reason::ServerDown, cause).cause,
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

/// A number from 0 to 1 that is constant for the certificate.
fn share_of(certificate: &Certificate) -> f64 {
    share(certificate.hash)
}

fn random_share() -> f64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    share(u64::from_ne_bytes(bytes))
}

fn share(number: u64) -> f64 {
    f64::from(u32::try_from(number >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}
