//! The account at a directory.

use super::client::Client;
use super::context::Context;
use super::failure::{Failure, Stage};
use super::retry::on_bad_nonce;
use crate::config::Acme;
use crate::observe::{AcmeFailure as Reason, AcmeStep as Step};
use data_encoding::HEXLOWER;
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use secrecy::ExposeSecret as _;

/// The account of before, or a new one, which is written before it is used.
pub(super) async fn account(
    context: &Context,
    directory: &str,
    client: &Client,
) -> Result<Account, Failure> {
    let _one_at_a_time = context.accounts.lock().await;
    let Context { settings, folder, .. } = context;
    let file = account_file(settings, directory);
    let fail = |error: Error| Failure::of(&error, Stage::Account, client.retry_after());
    let builder = || Account::builder_with_http(Box::new(client.clone()));
    let read = folder.blocking({
        let file = file.clone();
        move |folder| folder.read(&file)
    });
    if let Some(bytes) = read.await.map_err(|error| Failure::state(&error))? {
        if let Ok(credentials) = serde_json::from_slice::<AccountCredentials>(&bytes) {
            match builder().from_credentials(credentials).await {
                Err(Error::KeyRejected) => {}
                outcome => return outcome.map_err(fail),
            }
        }
        // The words of the parser may quote the key.
        set_aside(context, directory, "it is not an account").await;
    }
    let first = settings.directories.first().is_some_and(|it| **it == *directory);
    let binding =
        settings.eab.as_ref().filter(|_| first).map(|eab| {
            ExternalAccountKey::new(eab.key_id.to_string(), eab.hmac_key.expose_secret())
        });
    let contact: Vec<&str> = settings.contact.iter().map(AsRef::as_ref).collect();
    // Consent is a setting, and there are no settings without it.
    let wish = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made =
        on_bad_nonce!({ builder().create(&wish, directory.to_owned(), binding.as_ref()).await });
    let (account, credentials) = made.map_err(fail)?;
    let text = serde_json::to_vec(&credentials)
        .map_err(|_| Failure::new(Reason::Other, "the account cannot be written"))?;
    let written = folder.blocking(move |folder| folder.write(&file, &text));
    written.await.map_err(|error| Failure::state(&error))?;
    context.took(Step::Account, "", directory);
    Ok(account)
}

/// Puts an account that cannot be used out of the way.
pub(super) async fn set_aside(context: &Context, directory: &str, cause: &'static str) {
    let file = account_file(&context.settings, directory);
    let moved = context.folder.blocking(move |folder| {
        folder.set_aside(&file, cause);
        Ok(())
    });
    // `set_aside` logs its own failure.
    let _ = moved.await;
}

/// One for each directory, and for each customer there.
fn account_file(settings: &Acme, directory: &str) -> String {
    let customer = settings.eab.as_ref().map_or("", |eab| &eab.key_id);
    let whose = format!("{directory} {customer}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whose.as_bytes());
    let digest = HEXLOWER.encode(digest.as_ref());
    format!("account-{}.json", digest.get(..16).unwrap_or_default())
}
