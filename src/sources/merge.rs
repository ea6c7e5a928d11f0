//! Several documents as one state. Of one key in one set the later source wins. Of one key in several sets all are held: that of the latest
//! source under its key, for whoever asks for no set, and the others where selections find them ([`crate::flag::overridden`]).
//!
//! When the winner deletes a flag, that of the loser is back at once, which flagd documents and does not do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::flag::{Delta, Digest, Item, ItemKind, ItemName, Position, Revision, State, overridden};

/// What one source says: definitions by key and set.
#[derive(Debug, Default)]
pub(super) struct Said {
    flags: BTreeMap<(String, String), Bytes>,
    /// Of these, what was never good: it gives way to anything that is said later.
    never_good: BTreeSet<(String, String)>,
    segments: BTreeMap<String, Bytes>,
}

/// What stands for a flag that was never read: nothing serves it, so that it is told as a flag that cannot be served, and not as none.
const UNREAD: &[u8] = b"{}";

/// A new document of a source. What is `None` could not be read: what the source said of it before stands.
#[derive(Debug, Default)]
pub(super) struct News {
    /// By key and set.
    pub(super) flags: BTreeMap<(String, String), Bytes>,
    /// Keys of those that could not be read.
    pub(super) unread_flags: BTreeSet<String>,
    /// What there is of some of them, where the source has never said anything better.
    pub(super) unreadable: BTreeMap<(String, String), Bytes>,
    pub(super) segments: BTreeMap<String, Option<Bytes>>,
}

#[derive(Debug)]
pub(super) struct Merge {
    /// By priority, the highest last.
    sources: Vec<Said>,
    held: BTreeMap<ItemName, Item>,
    position: Position,
    digest: Digest,
}

/// What to give to the writer.
#[derive(Debug)]
pub(super) enum Change {
    /// The first state.
    Whole(State),
    Edit(Delta),
    None,
}

impl Merge {
    /// `epoch`: of this process, so that no client takes its revisions for those of another.
    pub(super) fn new(sources: usize, epoch: u64) -> Self {
        let sources = (0..sources).map(|_| Said::default()).collect();
        Self { sources, held: BTreeMap::new(), position: Position { epoch, revision: 0 }, digest: Digest::default() }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// The change that a source's news make. The same said again is none.
    pub(super) fn take(&mut self, source: usize, news: News, now_us: i64) -> Change {
        let Some(said) = self.sources.get_mut(source) else { return Change::None };
        let News { mut flags, unread_flags, unreadable, segments } = news;
        for (place, definition) in &said.flags {
            if unread_flags.contains(&place.0) && !flags.contains_key(place) && !said.never_good.contains(place) {
                flags.insert(place.clone(), definition.clone());
            }
        }
        let is_among = |flags: &BTreeMap<(String, String), Bytes>, key: &String| {
            flags.range((key.clone(), String::new())..).next().is_some_and(|((known, _), _)| known == key)
        };
        let news: Vec<_> = unreadable.into_iter().filter(|((key, _), _)| !is_among(&flags, key)).collect();
        let mut never_good: BTreeSet<_> = news.iter().map(|(place, _)| place.clone()).collect();
        flags.extend(news);
        for key in unread_flags {
            if !is_among(&flags, &key) {
                never_good.insert((key.clone(), String::new()));
                flags.insert((key, String::new()), Bytes::from_static(UNREAD));
            }
        }
        let known = |key: &String, segment: Option<Bytes>| segment.or_else(|| said.segments.get(key).cloned());
        let segments = segments.into_iter().filter_map(|(key, segment)| known(&key, segment).map(|segment| (key, segment))).collect();
        let touched_flags: BTreeSet<String> = differing(&said.flags, &flags).map(|(key, _)| key.clone()).collect();
        let touched_segments: BTreeSet<String> = differing(&said.segments, &segments).cloned().collect();
        *said = Said { flags, never_good, segments };
        let mut edit = Edit::default();
        touched_segments.iter().for_each(|key| self.segment(key, &mut edit));
        touched_flags.iter().for_each(|key| self.flag(key, &mut edit));
        self.commit(edit, now_us)
    }

    fn segment(&self, key: &str, edit: &mut Edit) {
        let wanted = self.sources.iter().rev().find_map(|said| said.segments.get(key));
        let name = ItemName { kind: ItemKind::Segment, key: key.to_owned() };
        edit.set(self.held.get(&name), name, wanted);
    }

    /// Everything that is held of one key, in whatever set.
    fn flag(&self, key: &str, edit: &mut Edit) {
        // By set, with the source that wins there.
        let mut sets: BTreeMap<&str, (usize, &Bytes)> = BTreeMap::new();
        for (number, said) in self.sources.iter().enumerate() {
            let of_key = said.flags.range((key.to_owned(), String::new())..).take_while(|((other, _), _)| other == key);
            sets.extend(of_key.map(|((_, set), definition)| (set.as_str(), (number, definition))));
        }
        let winner = sets.iter().max_by_key(|(set, (number, _))| (*number, **set)).map(|(set, _)| *set);
        let mut wanted: BTreeMap<String, &Bytes> = BTreeMap::new();
        for (set, (_, definition)) in &sets {
            let place = if Some(*set) == winner { key.to_owned() } else { overridden::place(key, set) };
            wanted.insert(place, definition);
        }
        let prefix = overridden::places(key);
        let overridden = self.held.range(ItemName::flag(prefix.as_str())..).map(|(name, _)| name);
        let overridden = overridden.take_while(|name| name.kind == ItemKind::Flag && name.key.starts_with(&prefix)).cloned();
        let places: BTreeSet<ItemName> = overridden.chain(wanted.keys().map(ItemName::flag)).chain([ItemName::flag(key)]).collect();
        for name in places {
            let definition = wanted.get(&name.key).copied();
            edit.set(self.held.get(&name), name, definition);
        }
    }

    fn commit(&mut self, edit: Edit, now_us: i64) -> Change {
        let Edit { upserts, removed } = edit;
        let is_first = self.position.revision == 0;
        if upserts.is_empty() && removed.is_empty() && !is_first {
            return Change::None;
        }
        let Position { epoch, revision: prev_revision } = self.position;
        let revision = prev_revision + 1;
        self.position.revision = revision;
        for name in &removed {
            if let Some(item) = self.held.remove(name) {
                self.digest.remove_item(&item);
            }
        }
        let upserts: Vec<Item> = upserts.into_iter().map(|(name, definition)| Item { name, revision, definition }).collect();
        for item in &upserts {
            if let Some(before) = self.held.insert(item.name.clone(), item.clone()) {
                self.digest.remove_item(&before);
            }
            self.digest.add_item(item);
        }
        let (digest, kills, origin_time_us) = (self.digest, Vec::new(), now_us);
        match is_first {
            true => Change::Whole(State { position: self.position, items: upserts, kills, digest, origin_time_us }),
            false => Change::Edit(Delta { epoch, prev_revision, revision, upserts, removed, kills, digest, origin_time_us }),
        }
    }

    /// Everything that is held, for a writer that has lost its way.
    pub(super) fn state(&self, now_us: i64) -> State {
        let items = self.held.values().cloned().collect();
        State { position: self.position, items, kills: Vec::new(), digest: self.digest, origin_time_us: now_us }
    }

    pub(super) fn revision(&self) -> Revision {
        self.position.revision
    }
}

#[derive(Debug, Default)]
struct Edit {
    upserts: Vec<(ItemName, Bytes)>,
    removed: Vec<ItemName>,
}

impl Edit {
    fn set(&mut self, held: Option<&Item>, name: ItemName, wanted: Option<&Bytes>) {
        match (held, wanted) {
            (Some(item), Some(definition)) if item.definition == *definition => {}
            (_, Some(definition)) => self.upserts.push((name, definition.clone())),
            (Some(_), None) => self.removed.push(name),
            (None, None) => {}
        }
    }
}

/// Keys that are in one of the two alone, or in both with different values.
fn differing<'m, K: Ord>(before: &'m BTreeMap<K, Bytes>, after: &'m BTreeMap<K, Bytes>) -> impl Iterator<Item = &'m K> {
    let gone = before.keys().filter(|key| !after.contains_key(key));
    let new = after.iter().filter(|(key, definition)| before.get(key) != Some(definition)).map(|(key, _)| key);
    gone.chain(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `key@set=definition`, each.
    fn news(flags: &[&str]) -> News {
        let read = |flag: &&str| {
            let (place, definition) = flag.split_once('=').unwrap();
            let (key, set) = place.split_once('@').unwrap_or((place, ""));
            ((key.to_owned(), set.to_owned()), Bytes::copy_from_slice(definition.as_bytes()))
        };
        News { flags: flags.iter().map(read).collect(), ..News::default() }
    }

    /// What is held, as `place=definition`, an overridden one as `key/set`.
    fn held(merge: &Merge) -> Vec<String> {
        let shown = |item: &Item| {
            let place = item.name.key.trim_start_matches('\0').replace('\0', "/");
            format!("{place}={}", String::from_utf8_lossy(&item.definition))
        };
        merge.held.values().map(shown).collect()
    }

    fn is_none(change: &Change) -> bool {
        matches!(change, Change::None)
    }

    #[test]
    fn the_later_source_wins_and_what_it_deletes_comes_back_from_the_other() {
        let mut merge = Merge::new(2, 7);
        merge.take(1, news(&["a=late"]), 0);
        merge.take(0, news(&["a=early", "b=only"]), 0);
        assert_eq!(held(&merge), ["a=late", "b=only"]);
        merge.take(1, news(&[]), 0);
        assert_eq!(held(&merge), ["a=early", "b=only"]);
        merge.take(0, news(&["b=only"]), 0);
        assert_eq!(held(&merge), ["b=only"]);
    }

    #[test]
    fn one_key_in_several_sets_is_held_for_each_and_shown_from_the_latest_source() {
        let mut merge = Merge::new(2, 7);
        merge.take(0, news(&["a@pay=1"]), 0);
        merge.take(1, news(&["a@ship=2"]), 0);
        assert_eq!(held(&merge), ["a/pay=1", "a=2"]);
        merge.take(1, news(&[]), 0);
        assert_eq!(held(&merge), ["a=1"]);
        merge.take(1, news(&["a@pay=3"]), 0);
        assert_eq!(held(&merge), ["a=3"], "in one set the later wins");
    }

    #[test]
    fn of_a_flag_that_cannot_be_read_the_last_word_stands() {
        let mut merge = Merge::new(1, 7);
        merge.take(0, news(&["a=good", "b=x"]), 0);
        let unread = News { unread_flags: ["a".to_owned(), "new".to_owned()].into(), ..news(&["b=y"]) };
        merge.take(0, unread, 0);
        assert_eq!(held(&merge), ["a=good", "b=y", "new={}"]);
        merge.take(0, news(&["b=y"]), 0);
        assert_eq!(held(&merge), ["b=y"], "what is deleted is gone");
    }

    #[test]
    fn what_was_never_good_gives_way_to_what_is_said_later() {
        let mut merge = Merge::new(1, 7);
        let broken = |definition: &str| News {
            unread_flags: ["a".to_owned()].into(),
            unreadable: news(&[&format!("a={definition}")]).flags,
            ..News::default()
        };
        merge.take(0, News { unread_flags: ["a".to_owned()].into(), ..News::default() }, 0);
        assert_eq!(held(&merge), ["a={}"]);
        for word in ["first", "second"] {
            merge.take(0, broken(word), 0);
            assert_eq!(held(&merge), [format!("a={word}")]);
        }
        merge.take(0, news(&["a=good"]), 0);
        merge.take(0, broken("third"), 0);
        assert_eq!(held(&merge), ["a=good"]);
    }

    #[test]
    fn the_same_again_is_no_change_and_the_first_is_a_state_even_without_flags() {
        let mut merge = Merge::new(2, 7);
        assert!(matches!(merge.take(0, news(&[]), 0), Change::Whole(_)));
        assert!(matches!(merge.take(0, news(&["a=1"]), 0), Change::Edit(_)));
        assert!(is_none(&merge.take(0, news(&["a=1"]), 0)));
        assert!(is_none(&merge.take(1, news(&[]), 0)));
        assert!(matches!(merge.take(1, news(&["a=2"]), 0), Change::Edit(_)));
        assert!(is_none(&merge.take(0, news(&["a=3"]), 0)), "nobody sees what is overridden in its set");
        assert_eq!(merge.revision(), 3);
    }

    #[test]
    fn the_digest_is_that_of_what_is_held() {
        let mut merge = Merge::new(2, 7);
        merge.take(0, news(&["a@x=1", "b=2"]), 0);
        merge.take(1, news(&["a@y=3", "b=4"]), 0);
        merge.take(1, news(&["b=5"]), 0);
        assert_eq!(merge.digest(), Digest::of(merge.held.values(), []));
    }
}
