//! From an order to its certificate.

use super::account::account;
use super::challenge::{self, Guard};
use super::client::{Client, RequestError};
use super::clock::now;
use super::failure::{Failure, Stage};
use super::journal::Pending;
use super::problem::Kind;
use super::renewal_info::ari_id;
use super::renewer::Renewer;
use super::retry::on_bad_nonce;
use super::{schedule, trial};
use crate::config::Challenge;
use crate::observe::{AcmeFailure as Reason, AcmeStep as Step};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::sync::Arc;
use std::time::Duration;

/// The time limit of a validation, and of the issuance.
const POLL_TIMEOUT: Duration = Duration::from_mins(5);

/// The wait before the first poll, and its growth.
const POLL_POLICY: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(POLL_TIMEOUT);

/// The consecutive trials without a response after which the order is made anyway: some machines cannot
/// reach their own public address.
const MAX_UNREACHABLE_TRIALS: u32 = 6;

impl Renewer {
    /// Resumes the pending order, or creates one, and obtains the certificate.
    pub(super) async fn order(&mut self, directory: &str) -> Result<(), Failure> {
        // No order is created while the journal cannot be written.
        self.save().await?;
        let client = Client::new(self.context.outbound.clone());
        let account = account(&self.context, directory, &client).await?;
        let mut order = match self.resume(directory, &account, &client).await? {
            Some(order) => order,
            None => self.create(directory, &account, &client).await?,
        };
        let finished = self.finish(directory, &mut order, &client).await;
        finished.map_err(|failure| match failure.reason {
            Reason::ServerDown | Reason::BadNonce | Reason::RateLimited | Reason::State => failure,
            _ => {
                // The order cannot succeed any more.
                self.journal.pending = None;
                failure.costly()
            }
        })
    }

    /// The pending order, if there is one at this ACME server.
    async fn resume(
        &mut self,
        directory: &str,
        account: &Account,
        client: &Client,
    ) -> Result<Option<Order>, Failure> {
        let Some(pending) = self.journal.pending.as_ref().filter(|it| it.directory == directory)
        else {
            return Ok(None);
        };
        match on_bad_nonce!(account.order(pending.url.clone()).await) {
            Ok(order) => {
                self.record_step(Step::Resumed, directory);
                Ok(Some(order))
            }
            Err(error) => {
                let failure = Failure::of(&error, Stage::Order, client.take_retry_after());
                if failure.is_unknown {
                    self.journal.pending = None;
                }
                Err(failure)
            }
        }
    }

    /// Creates an order. The journal is written before the request, and again when the order exists.
    async fn create(
        &mut self,
        directory: &str,
        account: &Account,
        client: &Client,
    ) -> Result<Order, Failure> {
        if !self.journal.may_order(now()) {
            let most = schedule::ORDERS_PER_HOUR;
            let cause =
                format_args!("{most} orders were made in the last hour, the limit of this server");
            return Err(Failure::new(Reason::RateLimited, cause));
        }
        let context = Arc::clone(&self.context);
        let profile = context.settings.profile.as_deref();
        check_profile(account, profile)?;
        self.trial().await?;
        self.record_step(Step::Trial, directory);

        let key = KeyPair::generate().map_err(|error| {
            Failure::new(Reason::Other, format_args!("cannot generate a key: {error}"))
        })?;
        let identifiers = [match challenge::address(&self.name) {
            Some(address) => Identifier::Ip(address),
            None => Identifier::Dns(self.name.to_string()),
        }];
        let new_order = || match profile {
            Some(profile) => NewOrder::new(&identifiers).profile(profile),
            None => NewOrder::new(&identifiers),
        };
        self.journal.order_requested(now());
        self.save().await?;
        let replaced = self.replaced(directory);
        let mut created = on_bad_nonce!({
            let request = match &replaced {
                Some(replaced) => new_order().replaces(replaced.clone()),
                None => new_order(),
            };
            account.new_order(&request).await
        });
        if replaced.is_some() && created.as_ref().is_err_and(is_replacement_error) {
            created = on_bad_nonce!(account.new_order(&new_order()).await);
        }
        let order = created.map_err(|error| {
            if matches!(error, Error::Api(_)) {
                self.journal.order_rejected();
            }
            Failure::of(&error, Stage::Order, client.take_retry_after())
        })?;
        self.journal.order_created(Pending {
            directory: directory.to_owned(),
            url: order.url().to_owned(),
            key: key.serialize_pem(),
        });
        self.record_step(Step::Order, directory);
        // On failure the order is in memory only; if a crash loses it, it counts as failed.
        let _ = self.save().await;
        Ok(order)
    }

    /// The certificate that the order replaces, for an ACME server that has issued it and supports
    /// renewal information.
    fn replaced(&self, directory: &str) -> Option<CertificateIdentifier<'static>> {
        let is_issuer = self.journal.directory.as_deref() == Some(directory);
        let has_window = self.journal.window.as_ref().is_some_and(|window| window.span.is_some());
        self.current.as_ref().filter(|_| is_issuer && has_window).and_then(ari_id)
    }

    async fn trial(&mut self) -> Result<(), Failure> {
        let context = &self.context;
        let tested = trial::run(
            &context.probe,
            &context.acme_status.challenges,
            &self.name,
            context.settings.challenge,
        );
        match tested.await {
            Err(failure)
                if failure.reason == Reason::Unreachable
                    && self.unreachable >= MAX_UNREACHABLE_TRIALS =>
            {
                let hint = "the order is made anyway, because the CA may reach this server; if only \
                            this machine cannot reach it, set `self_check.connect_to`";
                self.warn(&failure, hint);
                Ok(())
            }
            Err(failure) => {
                self.unreachable += u32::from(failure.reason == Reason::Unreachable);
                Err(failure)
            }
            Ok(()) => {
                self.unreachable = 0;
                Ok(())
            }
        }
    }

    /// Completes an order, from its current state to the certificate.
    async fn finish(
        &mut self,
        directory: &str,
        order: &mut Order,
        client: &Client,
    ) -> Result<(), Failure> {
        let fail = |error: Error| Failure::of(&error, Stage::Validation, client.take_retry_after());
        let Some(key) = self.journal.pending.as_ref().map(|it| it.key.clone()) else {
            return Err(Failure::new(Reason::Other, "the order has no private key"));
        };
        let key = KeyPair::from_pem(&key).map_err(|_| {
            Failure::new(Reason::Other, "the private key of the order is invalid").costly()
        })?;
        if order.state().status == OrderStatus::Pending {
            // Served until the ACME server has validated them.
            let _responses = on_bad_nonce!(self.respond(directory, order).await).map_err(fail)?;
            let validated = on_bad_nonce!(order.poll_ready(&POLL_POLICY).await);
            if order.state().status == OrderStatus::Invalid {
                return Err(invalid_order(order).await);
            }
            validated.map_err(fail)?;
        }
        match order.state().status {
            OrderStatus::Invalid => return Err(invalid_order(order).await),
            OrderStatus::Ready => {
                let csr = self.csr(&key)?;
                on_bad_nonce!(order.finalize_csr(&csr).await).map_err(fail)?;
                self.record_step(Step::Finalize, directory);
            }
            _ => {}
        }
        let chain = on_bad_nonce!(order.poll_certificate(&POLL_POLICY).await);
        if order.state().status == OrderStatus::Invalid {
            return Err(invalid_order(order).await);
        }
        let chain = chain.map_err(fail)?;
        self.install(directory, &key.serialize_pem(), &chain).await?;
        self.record_step(Step::Certificate, directory);
        Ok(())
    }

    /// Serves the responses to the challenges, and requests their validation.
    async fn respond(&self, directory: &str, order: &mut Order) -> Result<Vec<Guard>, Error> {
        let challenges = &self.context.acme_status.challenges;
        let kind = match self.context.settings.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        };
        let mut guards = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                // Valid from an earlier order; or invalid, which the order's state reports.
                continue;
            }
            let offered = authorization.challenges.iter().map(|it| it.r#type.clone());
            if !offered.into_iter().any(|offered| offered == kind) {
                return Err(Error::Unsupported(self.context.settings.challenge.name()));
            }
            let Some(mut challenge) = authorization.challenge(kind.clone()) else { continue };
            let proof = challenge.key_authorization();
            guards.push(match self.context.settings.challenge {
                Challenge::TlsAlpn01 => {
                    let digest = proof.digest();
                    let name = self.name.trim_matches(['[', ']']);
                    let certificate = challenge::certificate(name, digest.as_ref());
                    let certificate = certificate.map_err(|error| Error::Other(error.into()))?;
                    challenges.serve_certificate(&challenge::server_name(&self.name), certificate)
                }
                Challenge::Http01 => challenges.serve_body(&challenge.token, proof.as_str()),
            });
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await?;
                self.record_step(Step::Challenge, directory);
            }
        }
        Ok(guards)
    }

    /// The certificate signing request, with only the domain.
    fn csr(&self, key: &KeyPair) -> Result<Vec<u8>, Failure> {
        let name = self.name.trim_matches(['[', ']']).to_owned();
        let csr = CertificateParams::new(vec![name]).and_then(|mut params| {
            params.distinguished_name = DistinguishedName::new();
            params.serialize_request(key)
        });
        let csr = csr.map_err(|error| {
            Failure::new(Reason::Other, format_args!("cannot create the CSR: {error}"))
        })?;
        Ok(csr.der().to_vec())
    }
}

/// Why an order is invalid: the error of its challenge, if it has one.
async fn invalid_order(order: &mut Order) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = on_bad_nonce!(authorization.refresh().await) else { break };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            return Failure::problem(problem, Stage::Validation);
        }
    }
    match &order.state().error {
        Some(problem) => Failure::problem(problem, Stage::Validation).costly(),
        None => Failure::new(
            Reason::Other,
            "the ACME server marked the order as invalid without an error",
        )
        .costly(),
    }
}

/// Fails if the ACME server does not offer the configured profile.
fn check_profile(account: &Account, profile: Option<&str>) -> Result<(), Failure> {
    let Some(profile) = profile else { return Ok(()) };
    let offered: Vec<_> = account.profiles().map(|it| it.name.to_owned()).collect();
    if offered.iter().any(|offered| offered == profile) {
        return Ok(());
    }
    let offered = if offered.is_empty() { "none".into() } else { offered.join(", ") };
    let cause =
        format!("the ACME server does not offer the profile `{profile}`; it offers {offered}");
    Err(Failure::new(Reason::Profile, cause))
}

/// Whether an order failed only because it replaces a certificate (RFC 9773 §5): that one was replaced
/// already, or the ACME server does not support `replaces`. The library then returns an untyped error,
/// as it does otherwise only for failed requests.
fn is_replacement_error(error: &Error) -> bool {
    match error {
        Error::Api(problem) => Kind::of(problem) == Kind::AlreadyReplaced,
        Error::Unsupported(_) => true,
        Error::Other(cause) => !cause.is::<RequestError>(),
        _ => false,
    }
}
