//! What flags and their variants may be called. Ours are narrow: they go into stores, URLs and names of files. Those of flagd's documents are
//! whatever a team has written; `yardarm start` compares them and tells them, and makes nothing else of them.

use super::limits::{self, FLAGD_NAME_BYTES, KEY_BYTES};

/// Whose rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    #[default]
    Ours,
    Flagds,
}

impl Naming {
    /// In flagd's place any text of one line. A control character would end a line of the log, or give orders to the terminal that shows it,
    /// and a NUL is how places are told from keys ([`super::overridden`]).
    pub fn takes_key(self, key: &str) -> bool {
        match self {
            Self::Ours => limits::is_key(key),
            Self::Flagds => (1..=FLAGD_NAME_BYTES).contains(&key.len()) && !key.chars().any(char::is_control),
        }
    }

    /// Only ever a value, so that it may have any characters.
    pub fn takes_variant(self, name: &str) -> bool {
        (1..=self.name_bytes()).contains(&name.len())
    }

    fn name_bytes(self) -> usize {
        match self {
            Self::Ours => KEY_BYTES,
            Self::Flagds => FLAGD_NAME_BYTES,
        }
    }

    /// What is expected where a key is refused.
    pub(super) fn key(self) -> String {
        match self {
            Self::Ours => format!("a key of 1 to {KEY_BYTES} letters, digits, dots, underscores and hyphens"),
            Self::Flagds => format!("a key of 1 to {FLAGD_NAME_BYTES} bytes without control characters"),
        }
    }

    pub(super) fn variant(self) -> String {
        format!("a name of 1 to {} bytes", self.name_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_narrow_and_flagds_are_any_text_of_one_line() {
        for key in ["a", "A.b_c-9", &"k".repeat(KEY_BYTES)] {
            assert!(Naming::Ours.takes_key(key) && Naming::Flagds.takes_key(key), "{key}");
        }
        for key in ["a b", " ", "a/b", "a:b", "\"a\"", "a\\b", "ümläut", "旗", "🏁", "a%2Fb", &"k".repeat(KEY_BYTES + 1)] {
            assert!(!Naming::Ours.takes_key(key) && Naming::Flagds.takes_key(key), "{key}");
        }
        for key in ["", "a\0b", "a\nb", "\t", "\u{1b}[2J", "\u{7f}", "\u{85}", &"k".repeat(FLAGD_NAME_BYTES + 1)] {
            assert!(!Naming::Ours.takes_key(key) && !Naming::Flagds.takes_key(key), "{key:?}");
        }
        assert!(Naming::Flagds.takes_key(&"k".repeat(FLAGD_NAME_BYTES)));
    }

    #[test]
    fn a_variant_may_be_as_long_as_a_key_and_have_any_characters() {
        for (naming, most) in [(Naming::Ours, KEY_BYTES), (Naming::Flagds, FLAGD_NAME_BYTES)] {
            assert!(naming.takes_variant("\"on\"\n") && naming.takes_variant(&"v".repeat(most)), "{naming:?}");
            assert!(!naming.takes_variant("") && !naming.takes_variant(&"v".repeat(most + 1)), "{naming:?}");
        }
    }
}
