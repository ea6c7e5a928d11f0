//! MetroHash64 (J. Andrew Rogers, 2015) with seed 0, of a text at once or behind a prefix whose hash was begun beforehand.
//!
//! The `metrohash` crate hashes what arrives piece by piece, and its state cannot be kept for later. It is the oracle of our tests.

const K0: u64 = 0xD6D0_18F5;
const K1: u64 = 0xA2AA_033B;
const K2: u64 = 0x6299_2FC1;
const K3: u64 = 0x30BC_5B29;
const SEED: u64 = K2.wrapping_mul(K0);

const BLOCK: usize = 32;

/// The state after whole blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lanes([u64; 4]);

/// Bytes that many hashes begin with, and the state after them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prefix {
    lanes: Lanes,
    has_blocks: bool,
    /// What is left of it behind its whole blocks.
    rest: [u8; BLOCK],
    rest_len: u8,
}

/// MetroHash64 of these bytes.
#[inline]
pub fn metro64(bytes: &[u8]) -> u64 {
    let mut lanes = Lanes::NEW;
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    blocks.iter().for_each(|block| lanes.absorb(block));
    lanes.finish(!blocks.is_empty(), rest)
}

impl Prefix {
    pub(super) fn new(prefix: &[u8]) -> Self {
        let mut lanes = Lanes::NEW;
        let (blocks, tail) = prefix.as_chunks::<BLOCK>();
        blocks.iter().for_each(|block| lanes.absorb(block));
        let mut rest = [0; BLOCK];
        rest[..tail.len()].copy_from_slice(tail);
        Self { lanes, has_blocks: !blocks.is_empty(), rest, rest_len: tail.len() as u8 }
    }

    /// MetroHash64 of the prefix and these bytes, one behind the other.
    #[inline]
    pub(super) fn metro64(&self, bytes: &[u8]) -> u64 {
        let mut lanes = self.lanes;
        let mut block = self.rest;
        let begun = usize::from(self.rest_len);
        let (first, bytes) = bytes.split_at(bytes.len().min(BLOCK - begun));
        let filled = begun + first.len();
        block[begun..filled].copy_from_slice(first);
        if filled < BLOCK {
            return lanes.finish(self.has_blocks, &block[..filled]);
        }
        lanes.absorb(&block);
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        blocks.iter().for_each(|block| lanes.absorb(block));
        lanes.finish(true, rest)
    }
}

impl Lanes {
    const NEW: Self = Self([SEED; 4]);

    #[inline]
    fn absorb(&mut self, block: &[u8; BLOCK]) {
        let [a, b, c, d] = &mut self.0;
        let word = |number: usize| block[8 * number..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        *a = a.wrapping_add(word(0).wrapping_mul(K0)).rotate_right(29).wrapping_add(*c);
        *b = b.wrapping_add(word(1).wrapping_mul(K1)).rotate_right(29).wrapping_add(*d);
        *c = c.wrapping_add(word(2).wrapping_mul(K2)).rotate_right(29).wrapping_add(*a);
        *d = d.wrapping_add(word(3).wrapping_mul(K3)).rotate_right(29).wrapping_add(*b);
    }

    /// `rest` is shorter than a block.
    #[inline]
    fn finish(self, has_blocks: bool, mut rest: &[u8]) -> u64 {
        let [mut a, mut b, mut c, mut d] = self.0;
        if has_blocks {
            c ^= (a.wrapping_add(d).wrapping_mul(K0)).wrapping_add(b).rotate_right(37).wrapping_mul(K1);
            d ^= (b.wrapping_add(c).wrapping_mul(K1)).wrapping_add(a).rotate_right(37).wrapping_mul(K0);
            a ^= (a.wrapping_add(c).wrapping_mul(K0)).wrapping_add(d).rotate_right(37).wrapping_mul(K1);
            b ^= (b.wrapping_add(d).wrapping_mul(K1)).wrapping_add(c).rotate_right(37).wrapping_mul(K0);
            a = SEED.wrapping_add(a ^ b);
        }
        if let Some((words, after)) = rest.split_first_chunk::<16>() {
            let word = |number: usize| words[8 * number..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            b = a.wrapping_add(word(0).wrapping_mul(K2)).rotate_right(29).wrapping_mul(K3);
            c = a.wrapping_add(word(1).wrapping_mul(K2)).rotate_right(29).wrapping_mul(K3);
            b ^= b.wrapping_mul(K0).rotate_right(21).wrapping_add(c);
            c ^= c.wrapping_mul(K3).rotate_right(21).wrapping_add(b);
            a = a.wrapping_add(c);
            rest = after;
        }
        let mut mix = |number: u64, turn: u32| {
            a = a.wrapping_add(number.wrapping_mul(K3));
            a ^= a.rotate_right(turn).wrapping_mul(K1);
        };
        if let Some((number, after)) = rest.split_first_chunk() {
            mix(u64::from_le_bytes(*number), 55);
            rest = after;
        }
        if let Some((number, after)) = rest.split_first_chunk() {
            mix(u32::from_le_bytes(*number).into(), 26);
            rest = after;
        }
        if let Some((number, after)) = rest.split_first_chunk() {
            mix(u16::from_le_bytes(*number).into(), 48);
            rest = after;
        }
        if let [number, ..] = rest {
            mix(u64::from(*number), 37);
        }
        a ^= a.rotate_right(28);
        a = a.wrapping_mul(K0);
        a ^ a.rotate_right(29)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use metrohash::MetroHash64;
    use proptest::prelude::*;

    use super::*;

    fn theirs(bytes: &[u8]) -> u64 {
        let mut hasher = MetroHash64::with_seed(0);
        hasher.write(bytes);
        hasher.finish()
    }

    #[test]
    fn the_published_vector_is_met() {
        let published = b"012345678901234567890123456789012345678901234567890123456789012";
        assert_eq!(metro64(published).to_le_bytes(), [0x6b, 0x75, 0x3d, 0xae, 0x06, 0x70, 0x4b, 0xad]);
    }

    #[test]
    fn every_length_is_that_of_the_crate() {
        let bytes: Vec<u8> = (0..300_u32).map(|number| (number * 167 % 251) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(metro64(&bytes[..length]), theirs(&bytes[..length]), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_and_what_follows_are_one_text(prefix in prop::collection::vec(any::<u8>(), 0..100), key in prop::collection::vec(any::<u8>(), 0..100)) {
            let whole = [prefix.as_slice(), &key].concat();
            prop_assert_eq!(Prefix::new(&prefix).metro64(&key), theirs(&whole));
            prop_assert_eq!(metro64(&whole), theirs(&whole));
        }
    }
}
