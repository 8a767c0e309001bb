/// Retries a request after `badNonce`: the server has not processed it (RFC 8555 §6.5). The library
/// sends it three times, which is not enough for an ACME server that runs on several machines.
///
/// A macro instead of a function with an async closure, because the compiler cannot prove that the
/// closure's future is `Send`.
macro_rules! on_bad_nonce {
    ($request:expr) => {{
        let mut left = 5;
        loop {
            match $request {
                Err(instant_acme::Error::Api(problem))
                    if left > 0
                        && $crate::tls::acme::problem::Kind::of(&problem)
                            == $crate::tls::acme::problem::Kind::BadNonce =>
                {
                    left -= 1;
                }
                outcome => break outcome,
            }
        }
    }};
}

pub(super) use on_bad_nonce;
