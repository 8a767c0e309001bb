/// Repeats a request while only its nonce is refused; nothing was done then (RFC 8555 §6.5). The
/// library sends it three times, which is not enough for a directory behind several machines.
///
/// A macro, and no function of an async closure: the compiler cannot prove that its future is `Send`.
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
