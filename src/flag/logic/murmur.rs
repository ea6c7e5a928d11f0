//! MurmurHash3 x86 32 with seed 0 (Austin Appleby, public domain), the hash of flagd's `fractional`. Ours, as every hash that deals people is:
//! a crate that changed its mind would move them.

const C1: u32 = 0xcc9e_2d51;
const C2: u32 = 0x1b87_3593;

pub(super) fn murmur3_32(bytes: &[u8]) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, block| {
        let mixed = (hash ^ scrambled(u32::from_le_bytes(*block))).rotate_left(13);
        mixed.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let mut rest = [0; 4];
    rest[..tail.len()].copy_from_slice(tail);
    // Scrambled zero is zero, so that no tail changes nothing.
    hash ^= scrambled(u32::from_le_bytes(rest));
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn scrambled(block: u32) -> u32 {
    block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first five are flagd's own, found by search: they are where an arithmetic that is off by one shows.
    #[test]
    fn hashes_are_those_of_the_reference() {
        for (text, expected) in [
            ("ejOoVL", 0),
            ("bY9fO-", 1),
            ("SI7p-", 2_147_483_647),
            ("6LvT0", 2_147_483_648),
            ("ceQdGm", 4_294_967_295),
            ("", 0),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ] {
            assert_eq!(murmur3_32(text.as_bytes()), expected, "{text}");
        }
    }
}
