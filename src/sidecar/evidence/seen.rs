//! Which units a thread has noted lately: a table of fixed size, so that a question about a unit that is known costs one look at one line
//! of cache and writes nothing.

/// Of one thread, 16 bytes each: 1 MiB, which is there from the first flag with metrics that somebody asks for. A unit that was pushed out is
/// noted once more, and the collector knows it again.
pub(super) const SLOTS: usize = 65_536;
/// Of one line of cache.
const WAYS: usize = 4;
/// A unit that is still asked about is noted anew after this, so that the collector knows for whom it has to keep its memory.
pub(super) const REFRESH_S: u32 = 60;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Of the flag as it is held and of the unit; 0 is free.
    print: u64,
    noted_s: u32,
    variant: u16,
}

#[derive(Debug, Default)]
pub(super) struct Seen(Box<[Slot]>);

impl Seen {
    /// Whether this variant was noted for the print within [`REFRESH_S`].
    #[inline]
    pub(super) fn has(&self, print: u64, variant: u16, now_s: u32) -> bool {
        let found = self.line(print).iter().find(|slot| slot.print == print);
        found.is_some_and(|slot| slot.variant == variant && now_s.wrapping_sub(slot.noted_s) < REFRESH_S)
    }

    /// In the place of what it was before, of a free one, or of the one that was noted longest ago.
    pub(super) fn note(&mut self, print: u64, variant: u16, now_s: u32) {
        if self.0.is_empty() {
            self.0 = vec![Slot::default(); SLOTS].into();
        }
        let from = first(print);
        let line = &mut self.0[from..from + WAYS];
        let same = line.iter().position(|slot| slot.print == print).or_else(|| line.iter().position(|slot| slot.print == 0));
        let oldest = || line.iter().enumerate().max_by_key(|(_, slot)| now_s.wrapping_sub(slot.noted_s)).map_or(0, |(at, _)| at);
        let at = same.unwrap_or_else(oldest);
        line[at] = Slot { print, noted_s: now_s, variant };
    }

    #[inline]
    fn line(&self, print: u64) -> &[Slot] {
        let from = first(print);
        self.0.get(from..from + WAYS).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Slot>()
    }
}

#[inline]
fn first(print: u64) -> usize {
    (print >> 32) as usize % (SLOTS / WAYS) * WAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(number: u64) -> u64 {
        crate::flag::metro64(&number.to_le_bytes()) | 1
    }

    #[test]
    fn a_unit_is_noted_once_for_a_variant_and_a_minute() {
        let mut seen = Seen::default();
        assert!(!seen.has(7, 1, 100));
        seen.note(7, 1, 100);
        assert!(seen.has(7, 1, 100 + REFRESH_S - 1));
        assert!(!seen.has(7, 1, 100 + REFRESH_S), "it is never noted again");
        assert!(!seen.has(7, 2, 100), "another variant was served");
        assert!(!seen.has(9, 1, 100), "another unit");
    }

    #[test]
    fn a_million_units_take_no_more_room_than_one_and_the_latest_are_known() {
        let mut seen = Seen::default();
        seen.note(print(0), 0, 0);
        let one = seen.bytes();
        for number in 0..1_000_000 {
            seen.note(print(number), 0, (number / 1_000) as u32);
        }
        assert_eq!((seen.bytes(), one), (SLOTS * 16, SLOTS * 16));
        let known = (999_000..1_000_000).filter(|number| seen.has(print(*number), 0, 1_000)).count();
        assert!(known >= 990, "{known} of the last 1,000 are known");
    }
}
