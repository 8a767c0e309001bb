//! From an order to its certificate.

use super::account::account;
use super::challenge::{self, Guard};
use super::client::{Client, Offline};
use super::clock::now;
use super::failure::{Failure, Stage};
use super::journal::Pending;
use super::keeper::Keeper;
use super::problem::Kind;
use super::renewal_info::ari_id;
use super::retry::on_bad_nonce;
use super::trial;
use crate::config::Challenge;
use crate::observe::{AcmeFailure as Reason, AcmeStep as Step};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::sync::Arc;
use std::time::Duration;

/// How long a directory may take to look at a challenge, or to issue.
const DECISION: Duration = Duration::from_mins(5);

/// How long to wait before the first look, and how much longer before each further one.
const POLL: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(DECISION);

/// Own test failures of the kind that may be this machine's alone, after which the order is made
/// all the same: not every machine reaches its own public address.
const HELD_BACK: u32 = 6;

impl Keeper {
    /// Goes on with the order that is there, or makes one, and takes it to its end.
    pub(super) async fn order(&mut self, directory: &str) -> Result<(), Failure> {
        // Nothing begins that could not be remembered.
        self.save().await?;
        let client = Client::new(self.context.outbound.clone());
        let account = account(&self.context, directory, &client).await?;
        let mut order = match self.resume(directory, &account, &client).await? {
            Some(order) => order,
            None => self.begin(directory, &account, &client).await?,
        };
        let finished = self.finish(directory, &mut order, &client).await;
        finished.map_err(|failure| match failure.reason {
            Reason::Directory | Reason::BadNonce | Reason::RateLimited | Reason::State => failure,
            _ => {
                // The order will not come to anything, whatever it was.
                self.journal.pending = None;
                failure.costly()
            }
        })
    }

    /// The order of before, if this directory has one.
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
                self.took(Step::Resumed, directory);
                Ok(Some(order))
            }
            Err(error) => {
                let failure = Failure::of(&error, Stage::Order, client.retry_after());
                if failure.forgotten {
                    self.journal.pending = None;
                }
                Err(failure)
            }
        }
    }

    /// Makes an order. It is in the journal before it is asked for, and again when it stands.
    async fn begin(
        &mut self,
        directory: &str,
        account: &Account,
        client: &Client,
    ) -> Result<Order, Failure> {
        if !self.journal.may_order(now()) {
            let what = "as many orders were made in the last hour as do no harm";
            return Err(Failure::new(Reason::RateLimited, what));
        }
        let context = Arc::clone(&self.context);
        let profile = context.settings.profile.as_deref();
        offers(account, profile)?;
        self.trial().await?;
        self.took(Step::Trial, directory);

        let key = KeyPair::generate().map_err(|error| {
            Failure::new(Reason::Other, format_args!("cannot make a key: {error}"))
        })?;
        let identifiers = [match challenge::address(&self.name) {
            Some(address) => Identifier::Ip(address),
            None => Identifier::Dns(self.name.to_string()),
        }];
        let wish = || match profile {
            Some(profile) => NewOrder::new(&identifiers).profile(profile),
            None => NewOrder::new(&identifiers),
        };
        self.journal.begins(now());
        self.save().await?;
        let replaced = self.replaced(directory);
        let mut made = on_bad_nonce!({
            let wish = match &replaced {
                Some(replaced) => wish().replaces(replaced.clone()),
                None => wish(),
            };
            account.new_order(&wish).await
        });
        if replaced.is_some() && made.as_ref().is_err_and(is_not_replaced) {
            made = on_bad_nonce!(account.new_order(&wish()).await);
        }
        let order = made.map_err(|error| {
            if matches!(error, Error::Api(_)) {
                self.journal.not_ordered();
            }
            Failure::of(&error, Stage::Order, client.retry_after())
        })?;
        self.journal.ordered(Pending {
            directory: directory.to_owned(),
            url: order.url().to_owned(),
            key: key.serialize_pem(),
        });
        self.took(Step::Order, directory);
        // It stands in the memory at least; an order that is lost in a crash is counted.
        let _ = self.save().await;
        Ok(order)
    }

    /// What the order replaces: only its own directory knows that, and only one that tells windows.
    fn replaced(&self, directory: &str) -> Option<CertificateIdentifier<'static>> {
        let is_its_own = self.journal.directory.as_deref() == Some(directory);
        let tells = self.journal.window.as_ref().is_some_and(|window| window.span.is_some());
        self.current.as_ref().filter(|_| is_its_own && tells).and_then(ari_id)
    }

    async fn trial(&mut self) -> Result<(), Failure> {
        let context = &self.context;
        let tested = trial::run(
            &context.probe,
            &context.board.challenges,
            &self.name,
            context.settings.challenge,
        );
        match tested.await {
            Err(failure)
                if failure.reason == Reason::Unreachable && self.unreachable >= HELD_BACK =>
            {
                self.warn(&failure, "the order is made all the same, as others may reach it");
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

    /// Takes an order from where it is to the certificate.
    async fn finish(
        &mut self,
        directory: &str,
        order: &mut Order,
        client: &Client,
    ) -> Result<(), Failure> {
        let fail = |error: Error| Failure::of(&error, Stage::Validation, client.retry_after());
        let Some(key) = self.journal.pending.as_ref().map(|it| it.key.clone()) else {
            return Err(Failure::new(Reason::Other, "the order has no key"));
        };
        let key = KeyPair::from_pem(&key).map_err(|_| {
            Failure::new(Reason::Other, "the key of the order cannot be read").costly()
        })?;
        if order.state().status == OrderStatus::Pending {
            // Given until the directory has decided.
            let _answers = on_bad_nonce!(self.answer(directory, order).await).map_err(fail)?;
            let decided = on_bad_nonce!(order.poll_ready(&POLL).await);
            if order.state().status == OrderStatus::Invalid {
                return Err(why_invalid(order).await);
            }
            decided.map_err(fail)?;
        }
        match order.state().status {
            OrderStatus::Invalid => return Err(why_invalid(order).await),
            OrderStatus::Ready => {
                let csr = self.request(&key)?;
                on_bad_nonce!(order.finalize_csr(&csr).await).map_err(fail)?;
                self.took(Step::Finalize, directory);
            }
            _ => {}
        }
        let chain = on_bad_nonce!(order.poll_certificate(&POLL).await);
        if order.state().status == OrderStatus::Invalid {
            return Err(why_invalid(order).await);
        }
        let chain = chain.map_err(fail)?;
        self.install(directory, &key.serialize_pem(), &chain).await?;
        self.took(Step::Certificate, directory);
        Ok(())
    }

    /// Puts the answers up, and asks the directory to look.
    async fn answer(&self, directory: &str, order: &mut Order) -> Result<Vec<Guard>, Error> {
        let challenges = &self.context.board.challenges;
        let kind = match self.context.settings.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        };
        let mut guards = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                // Proved to be ours not long ago; or refused, which the order will tell.
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
                    challenges.answer_handshakes(&challenge::server_name(&self.name), certificate)
                }
                Challenge::Http01 => challenges.answer_requests(&challenge.token, proof.as_str()),
            });
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await?;
                self.took(Step::Challenge, directory);
            }
        }
        Ok(guards)
    }

    /// The request for the certificate: the name, and nothing else.
    fn request(&self, key: &KeyPair) -> Result<Vec<u8>, Failure> {
        let name = self.name.trim_matches(['[', ']']).to_owned();
        let request = CertificateParams::new(vec![name]).and_then(|mut params| {
            params.distinguished_name = DistinguishedName::new();
            params.serialize_request(key)
        });
        let request = request.map_err(|error| {
            Failure::new(Reason::Other, format_args!("cannot make a request: {error}"))
        })?;
        Ok(request.der().to_vec())
    }
}

/// Why the directory gave an order up: the challenge says it, if that was it.
async fn why_invalid(order: &mut Order) -> Failure {
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
        None => Failure::new(Reason::Other, "the directory gave the order up").costly(),
    }
}

/// Whether the directory has the profile, if one is asked for.
fn offers(account: &Account, profile: Option<&str>) -> Result<(), Failure> {
    let Some(profile) = profile else { return Ok(()) };
    let offered: Vec<_> = account.profiles().map(|it| it.name.to_owned()).collect();
    if offered.iter().any(|offered| offered == profile) {
        return Ok(());
    }
    let offered = if offered.is_empty() { "none".into() } else { offered.join(", ") };
    let what = format!("it has no profile `{profile}`; it offers {offered}");
    Err(Failure::new(Reason::Profile, what))
}

/// Whether an order that replaces a certificate failed for that alone (RFC 9773 §5): it was replaced
/// already, or the directory does not do that. The library then fails with an error of no type, as
/// no other step of an order does but one that the directory cannot be reached for.
fn is_not_replaced(error: &Error) -> bool {
    match error {
        Error::Api(problem) => Kind::of(problem) == Kind::AlreadyReplaced,
        Error::Unsupported(_) => true,
        Error::Other(cause) => !cause.is::<Offline>(),
        _ => false,
    }
}
