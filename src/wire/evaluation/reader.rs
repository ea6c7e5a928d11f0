//! Fields of a protobuf message, read in place. Nothing is copied and nothing is trusted.

use super::Malformed;
use super::texts::NOT_UTF8;

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// In front of each field: its number and its wire type.
pub(super) type Key = u32;

/// The key of a number, truth value or enumeration.
pub(super) const fn varint(number: u32) -> Key {
    number << 3
}

/// The key of a double.
pub(super) const fn double(number: u32) -> Key {
    number << 3 | 1
}

/// The key of a text, bytes or message.
pub(super) const fn delimited(number: u32) -> Key {
    number << 3 | 2
}

const TRUNCATED: Malformed = Malformed("the message ends in the middle of a field");

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The key of the next field; its value has to be read, or passed by with [`Reader::skip`]. `None` at the end of the message.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Option<Key>, Malformed> {
        if let [key @ 8..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(Some(u32::from(*key)));
        }
        self.long_key()
    }

    fn long_key(&mut self) -> Result<Option<Key>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        // A key has 32 bits, whatever a varint can hold.
        let key = u32::try_from(self.varint()?).ok().filter(|key| *key >= 8);
        key.map(Some).ok_or(Malformed("a field has no number"))
    }

    /// Passes by the value of a field that means nothing here. Fields up to number `known` do, and have another wire type then.
    #[cold]
    pub(super) fn skip(&mut self, key: Key, known: u32) -> Result<(), Malformed> {
        if key >> 3 <= known {
            return Err(Malformed("a field has another wire type than its definition says"));
        }
        match key & 7 {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.bytes().map(drop),
            5 => self.take(4).map(drop),
            // Groups left the language before gRPC was born, and reading them needs recursion.
            _ => Err(Malformed("a field has a wire type that is not in use")),
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte, rest @ ..] = self.rest else { return Err(TRUNCATED) };
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is longer than 64 bits"))
    }

    pub(super) fn double(&mut self) -> Result<f64, Malformed> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(f64::from_le_bytes(*number))
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        if let [length @ 0..=0x7f, rest @ ..] = self.rest
            && let Some((taken, rest)) = rest.split_at_checked(usize::from(*length))
        {
            self.rest = rest;
            return Ok(taken);
        }
        let length = self.varint()?;
        self.take(length)
    }

    /// One that stands alone; those that stand close together are checked together, see `Texts`.
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| NOT_UTF8)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| TRUNCATED)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The value of the next field, if it has this key and up to 127 bytes, as most have; otherwise it is left for [`Reader::key`].
    #[inline]
    pub(super) fn short(&mut self, key: Key) -> Option<&'a [u8]> {
        let [found, length @ 0..=0x7f, rest @ ..] = self.rest else { return None };
        let (content, rest) = rest.split_at_checked(usize::from(*length)).filter(|_| u32::from(*found) == key)?;
        self.rest = rest;
        Some(content)
    }
}
