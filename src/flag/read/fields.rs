//! Takes objects apart: every key is known, none is there twice, and what is wrong is said of each.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::node::{Node, quoted};
use super::super::problem::{Path, Problems, did_you_mean};

/// The entries of an object whose keys the format names. Null counts as absent.
pub(super) struct Fields<'n, 't> {
    entries: &'n [(Cow<'t, str>, Node<'t>)],
    has_unknown: bool,
}

impl<'n, 't> Fields<'n, 't> {
    /// `None`, and a problem, when `node` is no object.
    pub(super) fn of(node: &'n Node<'t>, what: &str, known: &[&str], path: Path<'_>, problems: &mut Problems) -> Option<Self> {
        let entries = entries(node, what, path, problems)?;
        let mut has_unknown = false;
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&&**key)) {
            has_unknown = true;
            // A document of unknown keys is not worth a guess for each that nobody will read.
            let hint = if problems.is_full() { None } else { did_you_mean(key, known.iter().copied()) };
            let expected = if hint.is_some() { format!("a key of {what}") } else { format!("a key of {what}: {}", known.join(", ")) };
            problems.hinted(path.key(key), format!("an unknown key {}", quoted(key)), expected, hint);
        }
        Some(Self { entries, has_unknown })
    }

    /// Then what seems to be missing is probably there under a wrong name, which has been said.
    pub(super) fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entry(key).filter(|node| **node != Node::Null)
    }

    /// The same where null means something.
    pub(super) fn entry(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Those of `keys` that are there.
    pub(super) fn present(&self, keys: &[&'static str]) -> Vec<&'static str> {
        keys.iter().copied().filter(|key| self.get(key).is_some()).collect()
    }

    pub(super) fn text(&self, key: &str, path: Path<'_>, problems: &mut Problems) -> Option<String> {
        text(self.get(key)?, "text", path.key(key), problems)
    }

    pub(super) fn bool(&self, key: &str, path: Path<'_>, problems: &mut Problems) -> Option<bool> {
        match self.get(key)? {
            Node::Bool(value) => Some(*value),
            node => {
                problems.found(path.key(key), node.to_string(), "true or false");
                None
            }
        }
    }

    /// Each element through `read`; empty when absent.
    pub(super) fn list<T>(
        &self,
        key: &str,
        what: &str,
        path: Path<'_>,
        problems: &mut Problems,
        mut read: impl FnMut(&'n Node<'t>, Path<'_>, &mut Problems) -> Option<T>,
    ) -> Vec<T> {
        match self.get(key) {
            None => Vec::new(),
            Some(Node::List(elements)) => {
                let path = path.key(key);
                elements.iter().enumerate().filter_map(|(index, element)| read(element, path.index(index), problems)).collect()
            }
            Some(node) => {
                problems.found(path.key(key), node.to_string(), format!("a list of {what}"));
                Vec::new()
            }
        }
    }

    /// A list of texts, none of them empty and none there twice.
    pub(super) fn set(&self, key: &str, what: &str, path: Path<'_>, problems: &mut Problems) -> BTreeSet<String> {
        let mut set = BTreeSet::new();
        self.list(key, what, path, problems, |node, path, problems| {
            let text = text(node, what, path, problems)?;
            if text.is_empty() {
                problems.found(path, "\"\"", format!("{what}, not empty"));
            } else if let Some(twice) = set.replace(text) {
                problems.found(path, format!("{} a second time", quoted(&twice)), "each once");
            }
            Some(())
        });
        set
    }

    /// Each entry of an object whose keys are names, through `read`; empty when absent.
    pub(super) fn map<T>(
        &self,
        key: &str,
        what: &str,
        path: Path<'_>,
        problems: &mut Problems,
        mut read: impl FnMut(&str, &'n Node<'t>, Path<'_>, &mut Problems) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let Some(node) = self.get(key) else { return BTreeMap::new() };
        let path = path.key(key);
        let Some(entries) = entries(node, what, path, problems) else { return BTreeMap::new() };
        let mut map = BTreeMap::new();
        for (name, node) in entries {
            if let Some(value) = read(name, node, path.key(name), problems) {
                map.insert(name.clone().into_owned(), value);
            }
        }
        map
    }
}

pub(super) fn entries<'n, 't>(
    node: &'n Node<'t>,
    what: &str,
    path: Path<'_>,
    problems: &mut Problems,
) -> Option<&'n [(Cow<'t, str>, Node<'t>)]> {
    let Node::Map(entries) = node else {
        problems.found(path, node.to_string(), format!("{what}, as an object"));
        return None;
    };
    // A handful of keys is compared pair by pair; it is quicker than any set.
    if entries.len() <= 12 {
        for (index, (key, _)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(earlier, _)| earlier == key) {
                problems.found(path.key(key), "a key that is there twice", "each key once");
            }
        }
    } else {
        let mut seen = HashSet::with_capacity(entries.len());
        for (key, _) in entries.iter().filter(|(key, _)| !seen.insert(&**key)) {
            problems.found(path.key(key), "a key that is there twice", "each key once");
        }
    }
    Some(entries)
}

pub(super) fn text(node: &Node<'_>, expected: &str, path: Path<'_>, problems: &mut Problems) -> Option<String> {
    match node {
        Node::String(text) => Some(text.clone().into_owned()),
        node => {
            let hint = matches!(node, Node::Bool(_) | Node::Number(_)).then(|| format!("write \"{node}\" in quotes if text is meant"));
            problems.hinted(path, node.to_string(), expected, hint);
            None
        }
    }
}
