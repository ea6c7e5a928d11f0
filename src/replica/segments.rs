//! The segments that are served. One that does not compile stays as it was, and so does one that reads it; the others go on.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;

use crate::flag::limits::NESTING;
use crate::flag::{CompiledFlag, Item, ItemKind, ItemName, Problem, Problems, Revision, Segment, Segments, Test};

use super::apply::guarded;
use super::writer::Writer;

#[derive(Default)]
pub(super) struct Shelf {
    served: Served,
    documents: BTreeMap<String, Document>,
}

/// A definition that is served.
#[derive(Clone)]
struct Document {
    segment: Segment,
    definition: Bytes,
    revision: Revision,
}

/// What flags are compiled with.
#[derive(Default, Clone)]
pub(super) struct Served {
    compiled: Segments,
    revisions: BTreeMap<String, Revision>,
}

/// What became of a change of segments.
#[derive(Default)]
pub(super) struct Shelved {
    /// Keys whose meaning changed.
    pub(super) changed: HashSet<String>,
    pub(super) rejected: Vec<(Item, String)>,
    pub(super) accepted: Vec<Item>,
}

impl Served {
    pub(super) fn compiled(&self) -> &Segments {
        &self.compiled
    }

    /// Revision of the definition that is served; 0 for none.
    pub(super) fn revision(&self, key: &str) -> Revision {
        self.revisions.get(key).copied().unwrap_or(0)
    }

    /// Revision of the newest segment that a flag reads.
    pub(super) fn newest_read_by(&self, flag: &CompiledFlag) -> Revision {
        let read = self.revisions.iter().filter(|(key, _)| flag.reads_segment(key));
        read.map(|(_, revision)| *revision).max().unwrap_or(0)
    }
}

impl Shelf {
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The version that is served, and its revision.
    pub(super) fn last_good(&self, key: &str) -> Option<(Revision, Bytes)> {
        self.documents.get(key).map(|document| (document.revision, document.definition.clone()))
    }

    pub(super) fn change(&mut self, upserts: Vec<Item>, removed: &[String]) -> Shelved {
        let mut shelved = Shelved::default();
        if upserts.is_empty() && removed.is_empty() {
            return shelved;
        }
        let mut next = self.documents.clone();
        for key in removed {
            next.remove(key);
        }
        let mut candidates = BTreeMap::new();
        for item in upserts {
            match guarded(|| Segment::from_json(&item.definition).map_err(|problems| problems.to_string())) {
                Ok(segment) => {
                    let document = Document { segment, definition: item.definition.clone(), revision: item.revision };
                    next.insert(item.name.key.clone(), document);
                    candidates.insert(item.name.key.clone(), item);
                }
                Err(message) => shelved.rejected.push((item, message)),
            }
        }
        for round in 0.. {
            let compiled = guarded(|| Ok(Segments::compile(next.iter().map(|(key, document)| (key.as_str(), &document.segment)))));
            let problems = match compiled {
                Ok((compiled, problems)) if problems.is_empty() => {
                    self.served =
                        Served { compiled, revisions: next.iter().map(|(key, document)| (key.clone(), document.revision)).collect() };
                    self.documents = next;
                    shelved.changed.extend(removed.iter().cloned().chain(candidates.keys().cloned()));
                    break;
                }
                Ok((compiled, problems)) => {
                    let broken: BTreeSet<_> = candidates.keys().filter(|key| !compiled.contains_key(key)).cloned().collect();
                    let first = first_broken(&next, &broken, round);
                    for key in &first {
                        match self.documents.get(key) {
                            Some(last_good) => next.insert(key.clone(), last_good.clone()),
                            None => next.remove(key),
                        };
                        shelved.rejected.extend(candidates.remove(key).map(|item| (item, told(&problems, key))));
                    }
                    if !first.is_empty() {
                        continue;
                    }
                    problems.to_string()
                }
                Err(message) => message,
            };
            // What is wrong is with those that read what changed. Which change is to blame cannot be told: all of them wait.
            shelved.rejected.extend(std::mem::take(&mut candidates).into_values().map(|item| (item, problems.clone())));
            break;
        }
        shelved.accepted = candidates.into_values().collect();
        shelved
    }
}

/// Which of the broken ones go back to their last good version first: those that read no other. The others may fit then. After many rounds
/// all of them go.
fn first_broken(documents: &BTreeMap<String, Document>, broken: &BTreeSet<String>, round: usize) -> BTreeSet<String> {
    let reads_broken = |key: &&String| {
        let conditions = documents.get(*key).into_iter().flat_map(|document| &document.segment.when);
        let mut read = conditions.filter_map(|condition| match &condition.test {
            Test::Segment(read) => Some(read),
            Test::Attribute { .. } => None,
        });
        read.any(|read| broken.contains(read))
    };
    let first: BTreeSet<_> = broken.iter().filter(|key| !reads_broken(key)).cloned().collect();
    if first.is_empty() || round >= NESTING { broken.clone() } else { first }
}

/// What is wrong with one segment; with all of them, when it is not among the first.
fn told(problems: &Problems, key: &str) -> String {
    let place = format!("segments.{key}");
    let is_own = |problem: &&Problem| problem.path.strip_prefix(&place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let own: Vec<_> = problems.iter().filter(is_own).map(ToString::to_string).collect();
    if own.is_empty() { problems.to_string() } else { own.join("\n") }
}

impl Writer {
    /// Answers the keys of the segments whose meaning changed. Those that were rejected before are tried again: what they lacked may have
    /// come.
    pub(super) fn change_segments(&mut self, mut upserts: Vec<Item>, removed: Vec<ItemName>) -> HashSet<String> {
        if !upserts.is_empty() || !removed.is_empty() {
            let waiting = self.rejected.keys().filter(|name| name.kind == ItemKind::Segment);
            let waiting = waiting.filter(|name| upserts.iter().all(|item| item.name != **name));
            let waiting = waiting.filter_map(|name| self.received.segment(&name.key)).collect();
            upserts.extend(self.refused.split(self.position().epoch, waiting).0);
        }
        let removed: Vec<_> = removed.into_iter().map(|name| name.key).collect();
        let shelved = self.segments.change(upserts, &removed);
        for item in shelved.accepted {
            self.rejected.remove(&item.name);
        }
        for (item, message) in shelved.rejected {
            self.reject(item.name, item.revision, message);
        }
        shelved.changed
    }
}
