//! Reads the files that settings refer to, once.

use crate::config::file::{Unreadable, read_file};
use crate::config::location::Location;
use crate::config::problem::Problem;
use crate::config::reader::Located;
use crate::outbound::Roots;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use secrecy::{SecretSlice, SecretString};
use std::path::PathBuf;

/// The maximum size of a page.
const PAGE_BYTES: usize = 64 << 10;

/// The maximum size of a bearer token, which must fit into a request's head, and of other keys, which
/// are shorter.
const TOKEN_BYTES: usize = 4 << 10;

/// The minimum size of the key of the probes: as long as the HMAC (RFC 2104 §3).
const PROBE_KEY_BYTES: usize = 32;

/// The maximum size of a list of CA certificates.
const ROOT_CA_BYTES: usize = 1 << 20;

pub(super) fn page_body(text: &Located<String>) -> Result<Bytes, Problem> {
    if text.value.len() > PAGE_BYTES {
        return Err(too_long("the body of the page", &text.location));
    }
    Ok(Bytes::from(text.value.clone()))
}

pub(super) fn page(file: &Located<PathBuf>) -> Result<Bytes, Problem> {
    read_file(&file.value, PAGE_BYTES).map(Bytes::from).map_err(|why| {
        let name = format!("page `{}`", file.value.display());
        match why {
            Unreadable::TooLong(_) => too_long(&name, &file.location),
            why => unreadable(&name, file, &why, "verification.html"),
        }
    })
}

fn too_long(what: &str, location: &Location) -> Problem {
    Problem::error(format!("{what} is larger than {}KiB", PAGE_BYTES >> 10))
        .at(location)
        .hint("pages are for verification files; serve anything larger elsewhere")
}

/// The bearer token that clients must present.
pub(super) fn token(file: &Located<PathBuf>) -> Result<SecretString, Problem> {
    let name = format!("the token file `{}`", file.value.display());
    let invalid = |why: &str, hint: &str| {
        Problem::error(format!("{name} {why}")).at(&file.location).hint(hint)
    };
    let token = read_file(&file.value, TOKEN_BYTES)
        .map_err(|why| unreadable(&name, file, &why, "self-check-token"))?;
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(invalid("is empty", "write a token into it, or remove `token_file`"));
    }
    // RFC 9110 §5.5: nothing else can be sent in a header.
    if !token.iter().all(u8::is_ascii_graphic) {
        let hint = "write one token of letters, digits and punctuation, for example from `openssl rand -hex 32`";
        return Err(invalid("has characters that are not valid in a bearer token", hint));
    }
    Ok(String::from_utf8_lossy(token).into_owned().into())
}

/// The key that replicas share to recognise each other's probes.
pub(super) fn probe_key(file: &Located<PathBuf>) -> Result<SecretSlice<u8>, Problem> {
    let name = format!("the key file `{}`", file.value.display());
    let key = read_file(&file.value, TOKEN_BYTES)
        .map_err(|why| unreadable(&name, file, &why, "probe-key"))?;
    // Without the line end, which an editor adds to the copy of one replica.
    let key = key.trim_ascii();
    if key.len() < PROBE_KEY_BYTES {
        return Err(Problem::error(format!("{name} has fewer than {PROBE_KEY_BYTES} bytes"))
            .at(&file.location)
            .hint("write a random key into it, for example from `openssl rand -hex 32`"));
    }
    Ok(key.to_vec().into())
}

/// The public CAs and those in the file.
pub(super) fn roots(file: &Located<PathBuf>) -> Result<Roots, Problem> {
    let name = format!("`{}`", file.value.display());
    let pem = read_file(&file.value, ROOT_CA_BYTES)
        .map_err(|why| unreadable(&name, file, &why, "ca.pem"))?;
    Roots::public().and_pem(&pem).map_err(|error| {
        Problem::error(format!("{name} {error}")).at(&file.location).hint(
            "use a PEM file with the CA certificates, each starting with `-----BEGIN CERTIFICATE-----`",
        )
    })
}

/// A key in base64url, as CAs issue it.
pub(super) fn hmac_key(file: &Located<PathBuf>) -> Result<SecretSlice<u8>, Problem> {
    let name = format!("the key file `{}`", file.value.display());
    let text = read_file(&file.value, TOKEN_BYTES)
        .map_err(|why| unreadable(&name, file, &why, "eab.key"))?;
    // Some CAs issue it with padding.
    let text: Vec<u8> =
        text.into_iter().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').collect();
    let invalid = match BASE64URL_NOPAD.decode(&text) {
        Ok(key) if key.is_empty() => "is empty",
        Ok(key) => return Ok(key.into()),
        Err(_) => "is not base64url",
    };
    Err(Problem::error(format!("{name} {invalid}"))
        .at(&file.location)
        .hint("write the key into it exactly as the CA issued it"))
}

/// The problem of a file that cannot be read.
fn unreadable(name: &str, file: &Located<PathBuf>, why: &Unreadable, example: &str) -> Problem {
    Problem::error(format!("cannot read {name}"))
        .at(&file.location)
        .caused_by(why)
        .hint(why.hint(&file.value, example))
}
