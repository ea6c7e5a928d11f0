//! Where a flag is held whose key a flag of another set has: only `yardarm start` merges sets, and there a set can still be asked for by
//! itself. No document can name such a place, because no key has a NUL in it.

/// Under this nothing is ever held.
pub const NOWHERE: &str = "\0";

/// All places come before this, and all keys after it.
pub const END: &str = "\u{1}";

/// The place of the flag of that key and set.
pub fn place(key: &str, set: &str) -> String {
    format!("\0{key}\0{set}")
}

/// The places of all flags of that key begin with this.
pub fn places(key: &str) -> String {
    format!("\0{key}\0")
}

pub fn is_place(held_as: &str) -> bool {
    held_as.starts_with('\0')
}

/// The key of the flag that is held there; of any other flag it is the place itself.
#[inline]
pub fn key(held_as: &str) -> &str {
    match held_as.strip_prefix('\0') {
        Some(place) => place.split_once('\0').map_or(place, |(key, _)| key),
        None => held_as,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_leads_back_to_its_key_and_none_of_another_key_begins_alike() {
        for (flag, set) in [("a", ""), ("a", "b"), ("a.b", "c\0d"), (" ", "b"), ("ü/\"b\"", "c")] {
            let place = place(flag, set);
            assert_eq!((key(&place), is_place(&place)), (flag, true));
            assert!(place.starts_with(&places(flag)) && !place.starts_with(&places("a.")));
        }
        assert_eq!((key("a"), is_place("a"), key(NOWHERE)), ("a", false, ""));
    }
}
