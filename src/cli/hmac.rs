//! `callback-edge hmac INTEGRATION [CONNECTION]`: the digest that Nango expects to start a flow.

use super::secret::secret;
use super::{Exit, print_line, usage};
use crate::config::Problem;
use crate::preflight::hmac_digest;
use clap::builder::NonEmptyStringValueParser;
use std::io;
use std::path::PathBuf;

/// Print the HMAC digest for `nango.auth` and `nango.connect` in environments that require it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key comes from the variable NANGO_HMAC_KEY or from a file.
Exit codes: 0 printed, 64 usage error

Example:
  callback-edge hmac github user-1 --key-file /run/secrets/nango-hmac")]
pub(super) struct Args {
    /// Unique key of the integration in Nango
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    integration: String,

    /// Connection id; omit it if Nango chooses it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    connection: Option<String>,

    /// File with the HMAC key of the environment [default: the variable `NANGO_HMAC_KEY`]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Exit: 0 printed, 64 usage error.
pub(super) fn run(args: &Args) -> Exit {
    let key = match secret(args.key_file.as_deref(), KEY) {
        Ok(Some(key)) => key,
        Ok(None) => {
            return usage(
                &Problem::error(format!("there is no HMAC key: `{KEY}` is not set"))
                    .hint("set it or pass --key-file"),
            );
        }
        Err(problem) => return usage(&problem),
    };
    let digest = hmac_digest(&key, &args.integration, args.connection.as_deref());
    print_line(io::stdout(), &digest, Exit::Done)
}

/// The HMAC key of an environment, named as in Nango's examples.
pub(super) const KEY: &str = "NANGO_HMAC_KEY";
