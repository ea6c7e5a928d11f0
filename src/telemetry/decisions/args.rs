//! How the decision log is set up. Without a directory and without a collector there is none.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Of each argument alone: what comes behind them on a command line is not of the log.
const HEADING: &str = "Decision log";
/// What the files may be together when nothing is said.
const KEEP: u64 = 1024 * 1024 * 1024;
const LEAST_KEPT: u64 = 1024 * 1024;
/// A shorter salt is guessed, and with it every person whose key can be.
const SHORTEST_SALT: usize = 16;

#[derive(Clone, clap::Args)]
pub struct Args {
    /// Write who was served what to files of JSON lines in this directory; of one sidecar each
    #[arg(help_heading = HEADING, long = "decision-log", env = "YARDARM_DECISION_LOG", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Send the same to this OTLP collector as `feature_flag.evaluation` events, such as `http://127.0.0.1:4317`
    #[arg(help_heading = HEADING, long = "decision-log-otlp", env = "YARDARM_DECISION_LOG_OTLP", value_name = "URL")]
    pub otlp: Option<String>,

    /// How the log names a person
    #[arg(help_heading = HEADING, long = "decision-log-keys", env = "YARDARM_DECISION_LOG_KEYS", value_name = "HOW", default_value = "hashed")]
    pub keys: Keys,

    /// What targeting keys are hashed with: the same for every pod whose people are to be counted together
    #[arg(
        help_heading = HEADING,
        long = "decision-log-salt",
        env = "YARDARM_DECISION_LOG_SALT",
        value_name = "SALT",
        hide_env_values = true,
        value_parser = parse_salt,
        conflicts_with = "salt_file"
    )]
    pub salt: Option<String>,

    /// The same from a file, which is made when it is not there [default: decision-log.salt in --data]
    #[arg(id = "salt_file", help_heading = HEADING, long = "decision-log-salt-file", env = "YARDARM_DECISION_LOG_SALT_FILE", value_name = "FILE")]
    pub salt_file: Option<PathBuf>,

    /// Share of the events of a flag that is written, 0 to 1; the first of each person on each variant and every error are written always
    #[arg(help_heading = HEADING, long = "decision-log-sample", env = "YARDARM_DECISION_LOG_SAMPLE", value_name = "FLAG=RATE", value_delimiter = ',')]
    pub sample: Vec<Share>,

    /// What the files may be together, such as 512MiB; the oldest go first
    #[arg(help_heading = HEADING, long = "decision-log-keep", env = "YARDARM_DECISION_LOG_KEEP", value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub keep: u64,
}

/// What stands for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keys {
    /// 32 hex digits of an HMAC of the targeting key: the same person can be counted and found, not named
    Hashed,
    /// The targeting key
    Plain,
    /// Nothing
    None,
}

/// `checkout=0.1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    pub flag: String,
    pub rate: f64,
}

impl Args {
    pub fn is_on(&self) -> bool {
        self.dir.is_some() || self.otlp.is_some()
    }
}

impl Default for Args {
    /// No decision log.
    fn default() -> Self {
        Self { dir: None, otlp: None, keys: Keys::Hashed, salt: None, salt_file: None, sample: Vec::new(), keep: KEEP }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is no sampling rate; expected FLAG=RATE with a rate from 0 to 1, as checkout=0.1");
        let (flag, rate) = text.rsplit_once('=').ok_or_else(expected)?;
        match rate.trim().parse() {
            Ok(rate) if (0.0..=1.0).contains(&rate) && !flag.trim().is_empty() => Ok(Self { flag: flag.trim().to_owned(), rate }),
            _ => Err(expected()),
        }
    }
}

fn parse_salt(text: &str) -> Result<String, String> {
    match text.len() {
        SHORTEST_SALT.. => Ok(text.to_owned()),
        length => Err(format!("a salt of {length} bytes can be guessed; say at least {SHORTEST_SALT}, as `openssl rand -hex 32` does")),
    }
}

/// `1GiB`, `512MiB`, `2000000`.
fn parse_size(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no size from 1MiB; expected a number of bytes, KiB, MiB or GiB, as 512MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|size| *size >= LEAST_KEPT).ok_or_else(expected)
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, otlp, keys, salt, salt_file, sample, keep } = self;
        f.debug_struct("Args")
            .field("dir", dir)
            .field("otlp", &otlp.as_deref().map(crate::telemetry::redacted))
            .field("keys", keys)
            .field("salt", &salt.as_ref().map(|_| "***"))
            .field("salt_file", salt_file)
            .field("sample", sample)
            .field("keep", keep)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit_and_nothing_else_is() {
        for (text, size) in [("1GiB", 1 << 30), ("512MiB", 512 << 20), ("2048KiB", 2 << 20), ("1048576", 1 << 20), ("1048576B", 1 << 20)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "0", "1KiB", "-1GiB", "1GB", "1.5GiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err_and(|message| message.contains("512MiB")), "{text}");
        }
    }

    #[test]
    fn a_rate_belongs_to_a_flag_and_is_a_share() {
        assert_eq!("checkout=0.1".parse(), Ok(Share { flag: "checkout".to_owned(), rate: 0.1 }));
        for text in ["checkout", "=0.1", "checkout=2", "checkout=-1", "checkout=NaN", "checkout=", ""] {
            assert!(text.parse::<Share>().is_err_and(|message| message.contains("FLAG=RATE")), "{text}");
        }
    }

    #[test]
    fn a_salt_is_long_and_never_shown() {
        assert!(parse_salt("short").is_err_and(|message| message.contains("openssl")));
        let salt = parse_salt("0123456789abcdef").unwrap();
        let shown = format!("{:?}", Args { salt: Some(salt), ..Args::default() });
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }
}
