//! The segments that are served. One that does not compile stays as it was.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::flag::{CompiledFlag, Item, Revision, Segment, Segments};

use super::apply::guarded;

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
        self.documents.get(key).map(|document| (self.served.revision(key), document.definition.clone()))
    }

    pub(super) fn change(&mut self, upserts: Vec<Item>, removed: Vec<String>) -> Shelved {
        let mut shelved = Shelved::default();
        if upserts.is_empty() && removed.is_empty() {
            return shelved;
        }
        let (mut documents, mut revisions) = (self.documents.clone(), self.served.revisions.clone());
        for key in removed {
            documents.remove(&key);
            revisions.remove(&key);
            shelved.changed.insert(key);
        }
        for item in upserts {
            match guarded(|| Segment::from_json(&item.definition).map_err(|problems| problems.to_string())) {
                Ok(segment) => {
                    documents.insert(item.name.key.clone(), Document { segment, definition: item.definition.clone() });
                    revisions.insert(item.name.key.clone(), item.revision);
                    shelved.changed.insert(item.name.key.clone());
                    shelved.accepted.push(item);
                }
                Err(message) => shelved.rejected.push((item, message)),
            }
        }
        let compiled = guarded(|| {
            let (segments, problems) = Segments::compile(documents.iter().map(|(key, document)| (key.as_str(), &document.segment)));
            if problems.is_empty() { Ok(segments) } else { Err(problems.to_string()) }
        });
        match compiled {
            Ok(compiled) => {
                self.served = Served { compiled, revisions };
                self.documents = documents;
            }
            // Which of several does not fit the others cannot be told: all of them wait for a change that does.
            Err(message) => {
                let waiting = std::mem::take(&mut shelved.accepted);
                shelved.rejected.extend(waiting.into_iter().map(|item| (item, message.clone())));
                shelved.changed.clear();
            }
        }
        shelved
    }
}
