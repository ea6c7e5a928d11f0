//! What stands in the log for a targeting key: by default an HMAC of it, with a salt that is the same after a restart.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::args::Keys;

/// In the data directory of the sidecar: whoever holds it can look a person up in the log.
pub const SALT_FILE: &str = "decision-log.salt";
/// Of SHA-256.
const BLOCK: usize = 64;
const LEAST_BYTES: usize = 16;

/// A secret that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(String);

/// Names the people of one environment.
#[derive(Debug)]
pub struct Persons {
    keys: Keys,
    hmac: Hmac,
}

impl Salt {
    pub fn new(salt: String) -> Self {
        Self(salt)
    }

    /// A new one, as long as this process lives.
    pub fn random() -> Self {
        Self(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
    }

    pub fn read(path: &Path) -> Result<Self> {
        let salt = fs::read_to_string(path).with_context(|| format!("cannot read the salt of the decision log in {}", path.display()))?;
        let salt = salt.trim();
        ensure!(
            salt.len() >= LEAST_BYTES,
            "the salt of the decision log in {} is {} bytes, expected at least {LEAST_BYTES}; remove the file and a new one is made, with \
             which the people of older lines are other people",
            path.display(),
            salt.len()
        );
        Ok(Self(salt.to_owned()))
    }

    /// Reads the file, which is made when it is not there: complete, or not at all.
    pub fn kept_in(path: &Path) -> Result<Self> {
        if !path.exists() {
            let draft = path.with_extension(format!("salt-{}", std::process::id()));
            let made = Self::random().write_new(&draft, path);
            // It was linked under its name, or it is of no use.
            let _ = fs::remove_file(&draft);
            made.with_context(|| format!("cannot keep a salt of the decision log in {}", path.display()))?;
        }
        Self::read(path)
    }

    fn write_new(&self, draft: &Path, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
        writeln!(file, "{}", self.0)?;
        file.sync_all()?;
        match fs::hard_link(draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

impl Persons {
    pub fn new(keys: Keys, salt: &Salt, environment: &str) -> Self {
        let secret =
            Sha256::new().chain_update("yardarm decision log\0").chain_update(environment).chain_update("\0").chain_update(&salt.0);
        Self { keys, hmac: Hmac::new(&secret.finalize()) }
    }

    pub fn name<'k>(&self, targeting_key: &'k str) -> Option<Cow<'k, str>> {
        match self.keys {
            Keys::Hashed => Some(Cow::Owned(self.hmac.of(targeting_key))),
            Keys::Plain => Some(Cow::Borrowed(targeting_key)),
            Keys::None => None,
        }
    }
}

/// HMAC-SHA-256 (RFC 2104), cut to 128 bits.
#[derive(Clone)]
struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    /// `secret` is no longer than a block.
    fn new(secret: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        block.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        let keyed = |pad: u8| Sha256::new().chain_update(block.map(|byte| byte ^ pad));
        Self { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    fn of(&self, message: &str) -> String {
        let inner = self.inner.clone().chain_update(message).finalize();
        let outer = self.outer.clone().chain_update(inner).finalize();
        let first = outer.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        format!("{first:032x}")
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(***)")
    }
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hmac(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn it_is_an_hmac() {
        assert_eq!(Hmac::new(b"Jefe").of("what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c7");
    }

    #[test]
    fn a_person_has_one_name_in_an_environment_and_another_elsewhere() {
        let salt = Salt::new("0123456789abcdef".to_owned());
        let name = |environment, key| Persons::new(Keys::Hashed, &salt, environment).name(key).unwrap().into_owned();
        assert_eq!(name("prod", "ana"), name("prod", "ana"));
        assert_ne!(name("prod", "ana"), name("staging", "ana"));
        assert_ne!(name("prod", "ana"), name("prod", "bob"));
        assert_eq!(name("prod", "ana").len(), 32);
        assert_ne!(Persons::new(Keys::Hashed, &Salt::random(), "prod").name("ana").unwrap(), name("prod", "ana"));
        assert_eq!(Persons::new(Keys::Plain, &salt, "prod").name("ana").as_deref(), Some("ana"));
        assert_eq!(Persons::new(Keys::None, &salt, "prod").name("ana"), None);
    }

    #[test]
    fn the_salt_outlives_a_restart_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data").join(SALT_FILE);
        let first = Salt::kept_in(&path).unwrap();
        assert!(Salt::kept_in(&path).unwrap() == first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft was left behind");
        fs::write(&path, "short\n").unwrap();
        let error = Salt::kept_in(&path).err().map(|error| error.to_string()).unwrap();
        assert!(error.contains("5 bytes") && error.contains("remove"), "{error}");
    }
}
