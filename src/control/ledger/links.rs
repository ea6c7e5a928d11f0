//! Which item refers to which: prerequisites, and segments that flags and other segments read.

use std::collections::{BTreeMap, BTreeSet};

use crate::flag::{ItemKind, ItemName};

#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    refers_to: BTreeMap<ItemName, Vec<ItemName>>,
    users: BTreeMap<ItemName, BTreeSet<ItemName>>,
}

impl Links {
    /// Replaces what `item` refers to.
    pub(super) fn set(&mut self, item: &ItemName, refers_to: Vec<ItemName>) {
        self.remove(item);
        for used in &refers_to {
            self.users.entry(used.clone()).or_default().insert(item.clone());
        }
        if !refers_to.is_empty() {
            self.refers_to.insert(item.clone(), refers_to);
        }
    }

    pub(super) fn remove(&mut self, item: &ItemName) {
        for used in self.refers_to.remove(item).unwrap_or_default() {
            if let Some(users) = self.users.get_mut(&used) {
                users.remove(item);
                if users.is_empty() {
                    self.users.remove(&used);
                }
            }
        }
    }

    pub(super) fn of(&self, item: &ItemName) -> &[ItemName] {
        self.refers_to.get(item).map_or(&[], Vec::as_slice)
    }

    /// Who refers to `item`, directly.
    pub(super) fn users(&self, item: &ItemName) -> impl Iterator<Item = &ItemName> {
        self.users.get(item).into_iter().flatten()
    }

    /// The flags that read one of the segments, also through other segments.
    pub(super) fn flags_that_read<'s>(&self, segments: impl IntoIterator<Item = &'s ItemName>) -> BTreeSet<ItemName> {
        let mut flags = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<ItemName> = segments.into_iter().cloned().collect();
        while let Some(segment) = open.pop() {
            for user in self.users(&segment) {
                match user.kind {
                    ItemKind::Flag => drop(flags.insert(user.clone())),
                    ItemKind::Segment if seen.insert(user.clone()) => open.push(user.clone()),
                    ItemKind::Segment => {}
                }
            }
            seen.insert(segment);
        }
        flags
    }

    /// `items` and all that they refer to, directly or not.
    pub(super) fn closure(&self, items: impl IntoIterator<Item = ItemName>) -> BTreeSet<ItemName> {
        let mut closure = BTreeSet::new();
        let mut open: Vec<ItemName> = items.into_iter().collect();
        while let Some(item) = open.pop() {
            if !closure.contains(&item) {
                open.extend(self.of(&item).iter().cloned());
                closure.insert(item);
            }
        }
        closure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(key: &str) -> ItemName {
        ItemName::flag(key)
    }

    fn segment(key: &str) -> ItemName {
        ItemName::segment(key)
    }

    fn links() -> Links {
        let mut links = Links::default();
        links.set(&flag("a"), vec![flag("b"), segment("s")]);
        links.set(&flag("b"), vec![flag("c")]);
        links.set(&segment("t"), vec![segment("s")]);
        links.set(&flag("d"), vec![segment("t")]);
        links
    }

    #[test]
    fn users_follow_what_is_set_and_removed() {
        let mut links = links();
        assert_eq!(links.users(&segment("s")).collect::<Vec<_>>(), [&segment("t"), &flag("a")]);
        links.set(&flag("a"), vec![]);
        assert_eq!(links.users(&segment("s")).collect::<Vec<_>>(), [&segment("t")]);
        links.remove(&segment("t"));
        assert_eq!(links.users(&segment("s")).count(), 0);
        assert_eq!(links.users(&segment("t")).collect::<Vec<_>>(), [&flag("d")], "t is gone, but d still names it");
    }

    #[test]
    fn a_flag_reads_the_segments_of_its_segments() {
        assert_eq!(links().flags_that_read([&segment("s")]), [flag("a"), flag("d")].into());
        assert_eq!(links().flags_that_read([&segment("t")]), [flag("d")].into());
    }

    #[test]
    fn a_closure_ends_also_in_a_circle() {
        let mut links = links();
        links.set(&flag("c"), vec![flag("a")]);
        assert_eq!(links.closure([flag("b")]), [segment("s"), flag("a"), flag("b"), flag("c")].into());
    }
}
