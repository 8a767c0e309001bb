//! The account at an ACME server.

use super::client::Client;
use super::context::Context;
use super::failure::{Failure, Stage};
use super::retry::on_bad_nonce;
use crate::config::Acme;
use crate::observe::{AcmeFailure as Reason, AcmeStep as Step};
use data_encoding::HEXLOWER;
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use secrecy::ExposeSecret as _;

/// The stored account, or a new one, which is stored before it is used.
pub(super) async fn account(
    context: &Context,
    directory: &str,
    client: &Client,
) -> Result<Account, Failure> {
    let _lock = context.account_lock.lock().await;
    let Context { settings, state_dir, .. } = context;
    let file = account_file(settings, directory);
    let fail = |error: Error| Failure::of(&error, Stage::Account, client.take_retry_after());
    let builder = || Account::builder_with_http(Box::new(client.clone()));
    let read = state_dir.blocking({
        let file = file.clone();
        move |state_dir| state_dir.read(&file)
    });
    if let Some(bytes) = read.await.map_err(|error| Failure::state(&error))? {
        if let Ok(credentials) = serde_json::from_slice::<AccountCredentials>(&bytes) {
            match builder().from_credentials(credentials).await {
                Err(Error::KeyRejected) => {}
                outcome => return outcome.map_err(fail),
            }
        }
        // The parser's error text may quote the key.
        set_aside(context, directory, "not a valid account").await;
    }
    let first = settings.directories.first().is_some_and(|it| **it == *directory);
    let binding =
        settings.eab.as_ref().filter(|_| first).map(|eab| {
            ExternalAccountKey::new(eab.key_id.to_string(), eab.hmac_key.expose_secret())
        });
    let contact: Vec<&str> = settings.contact.iter().map(AsRef::as_ref).collect();
    // The configuration is rejected without `agree_to_terms`.
    let request = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let created =
        on_bad_nonce!({ builder().create(&request, directory.to_owned(), binding.as_ref()).await });
    let (account, credentials) = created.map_err(fail)?;
    let text = serde_json::to_vec(&credentials)
        .map_err(|_| Failure::new(Reason::Other, "cannot serialize the account"))?;
    let written = state_dir.blocking(move |state_dir| state_dir.write(&file, &text));
    written.await.map_err(|error| Failure::state(&error))?;
    context.record_step(Step::Account, "", directory);
    Ok(account)
}

/// Renames the file of an account that cannot be used.
pub(super) async fn set_aside(context: &Context, directory: &str, cause: &'static str) {
    let file = account_file(&context.settings, directory);
    let renamed = context.state_dir.blocking(move |state_dir| {
        state_dir.set_aside(&file, cause);
        Ok(())
    });
    // `set_aside` logs its own failure.
    let _ = renamed.await;
}

/// One for each ACME server and EAB key id.
fn account_file(settings: &Acme, directory: &str) -> String {
    let key_id = settings.eab.as_ref().map_or("", |eab| &eab.key_id);
    let identity = format!("{directory} {key_id}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, identity.as_bytes());
    let digest = HEXLOWER.encode(digest.as_ref());
    format!("account-{}.json", digest.get(..16).unwrap_or_default())
}
