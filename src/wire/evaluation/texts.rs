//! Texts of a message, checked a stretch at a time.
//!
//! The bytes between the texts of a message, its keys, lengths and most of its numbers, are UTF-8 too. Checking whatever is UTF-8 from a
//! text on, and cutting the texts that follow out of it, costs a third of checking each by itself (callgrind, questions of a stream).

use super::Malformed;

pub(super) const NOT_UTF8: Malformed = Malformed("a string is not UTF-8");

#[derive(Debug)]
pub(super) struct Texts<'a> {
    message: &'a [u8],
    checked: &'a str,
}

impl<'a> Texts<'a> {
    /// For the texts of this message and of all that it holds.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { message, checked: "" }
    }

    #[inline]
    pub(super) fn text(&mut self, bytes: &'a [u8]) -> Result<&'a str, Malformed> {
        match self.cut(bytes) {
            Some(text) => Ok(text),
            None => self.check_from(bytes),
        }
    }

    /// A text that begins or ends within a character is none: then its own first or last character is not whole.
    #[inline]
    fn cut(&self, bytes: &'a [u8]) -> Option<&'a str> {
        let start = offset(bytes, self.checked.as_bytes());
        self.checked.get(start..start.checked_add(bytes.len())?)
    }

    /// No byte is checked more than twice: where one stretch ends there is something that is in no text.
    #[cold]
    fn check_from(&mut self, bytes: &'a [u8]) -> Result<&'a str, Malformed> {
        if bytes.is_empty() {
            return Ok("");
        }
        let rest = self.message.get(offset(bytes, self.message)..).unwrap_or(bytes);
        self.checked = std::str::from_utf8(rest).unwrap_or_else(|error| valid(&rest[..error.valid_up_to()]));
        self.cut(bytes).ok_or(NOT_UTF8)
    }
}

fn valid(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Where `part` begins in `whole`; beyond its end when it is not of it.
fn offset(part: &[u8], whole: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_what_it_is_by_itself(pieces in prop::collection::vec(
            prop_oneof![".{0,6}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..6)], 0..8)) {
            let message = pieces.concat();
            let mut texts = Texts::of(&message);
            let mut start = 0;
            for piece in &pieces {
                let part = &message[start..start + piece.len()];
                prop_assert_eq!(texts.text(part).ok(), std::str::from_utf8(piece).ok());
                start += piece.len();
            }
        }

        #[test]
        fn any_part_in_any_order_is_what_it_is_by_itself(message in prop::collection::vec(prop_oneof![0x20_u8..0x7f, any::<u8>()], 0..24),
                                                        parts in prop::collection::vec((0..25_usize, 0..25_usize), 0..12)) {
            let mut texts = Texts::of(&message);
            for (a, b) in parts {
                let (start, end) = (a.min(b).min(message.len()), a.max(b).min(message.len()));
                let part = &message[start..end];
                prop_assert_eq!(texts.text(part).ok(), std::str::from_utf8(part).ok());
            }
        }
    }

    #[test]
    fn a_text_of_another_message_is_checked_by_itself() {
        let mut texts = Texts::of(b"some message");
        let other = "other".to_owned();
        assert_eq!(texts.text(other.as_bytes()), Ok("other"));
        assert!(texts.text(&[0xff]).is_err());
    }
}
