//! Segments, ready to be asked, each compiled once and shared by all flags that read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::Compiler;
use super::condition::Conditions;
use super::context::Attributes;
use super::document::{Segment, Test};
use super::keys::KeySet;
use super::limits;
use super::node::quoted;
use super::problem::{Path, Problems, way};

/// The segments of an environment by key. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Segments(Arc<BTreeMap<Box<str>, Arc<CompiledSegment>>>);

#[derive(Debug)]
pub(super) struct CompiledSegment {
    pub(super) key: Box<str>,
    pub(super) included: KeySet,
    pub(super) excluded: KeySet,
    pub(super) when: Conditions,
    /// Levels of segments, this one counted.
    pub(super) depth: usize,
    /// Conditions that one question may ask, those of the segments within counted each time.
    pub(super) cost: usize,
}

impl Segments {
    pub fn none() -> Self {
        Self::default()
    }

    /// Compiles them all. A segment with a problem, or one that reads such a segment, is left out; the others are there.
    pub fn compile<'s>(segments: impl IntoIterator<Item = (&'s str, &'s Segment)>) -> (Self, Problems) {
        let mut work =
            Work { definitions: segments.into_iter().collect(), done: BTreeMap::new(), path: Vec::new(), problems: Problems::default() };
        let keys: Vec<&str> = work.definitions.keys().copied().collect();
        for key in keys {
            work.compile(key);
        }
        let compiled = work.done.into_iter().filter_map(|(key, segment)| Some((Box::from(key), segment?))).collect();
        (Self(Arc::new(compiled)), work.problems)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the context is in the segment; `None` when there is no segment of that key.
    pub fn has<A: Attributes + ?Sized>(&self, key: &str, context: &A) -> Option<bool> {
        Some(self.0.get(key)?.has(context))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<CompiledSegment>> {
        self.0.get(key)
    }
}

impl CompiledSegment {
    pub(super) fn has<A: Attributes + ?Sized>(&self, context: &A) -> bool {
        if let Some(key) = context.targeting_key() {
            if self.included.contains(key) {
                return true;
            }
            if self.excluded.contains(key) {
                return false;
            }
        }
        !self.when.all.is_empty() && self.when.all.iter().all(|condition| condition.holds(&self.when, context))
    }

    /// Keys of this segment and of all that it reads.
    pub(super) fn collect_keys<'s>(&'s self, keys: &mut BTreeSet<&'s str>) {
        if keys.insert(&self.key) {
            self.when.segments.iter().for_each(|segment| segment.collect_keys(keys));
        }
    }
}

struct Work<'s> {
    definitions: BTreeMap<&'s str, &'s Segment>,
    /// `None`: refused.
    done: BTreeMap<&'s str, Option<Arc<CompiledSegment>>>,
    /// Keys that are being compiled, outermost first.
    path: Vec<&'s str>,
    problems: Problems,
}

impl<'s> Work<'s> {
    /// Depth first, so that a segment is compiled after those that it reads.
    fn compile(&mut self, key: &'s str) -> Option<Arc<CompiledSegment>> {
        if let Some(done) = self.done.get(key) {
            return done.clone();
        }
        let segment = *self.definitions.get(key)?;
        self.path.push(key);
        let mut inner = BTreeMap::new();
        let mut sound = true;
        for (index, condition) in segment.when.iter().enumerate() {
            let Test::Segment(read) = &condition.test else { continue };
            sound &= self.inner(key, index, read, &mut inner);
        }
        self.path.pop();
        let compiled = if sound { self.finish(key, segment, Segments(Arc::new(inner))) } else { None };
        self.done.insert(key, compiled.clone());
        compiled
    }

    /// The segment `read` by condition `index` of segment `key`. False when it cannot be had, which is said here if nowhere else.
    fn inner(&mut self, key: &str, index: usize, read: &str, inner: &mut BTreeMap<Box<str>, Arc<CompiledSegment>>) -> bool {
        let root = Path::ROOT;
        let segments = root.key("segments");
        let segment = segments.key(key);
        let when = segment.key("when");
        let condition = when.index(index);
        let place = condition.key("segment");
        let Some((&read, _)) = self.definitions.get_key_value(read) else {
            let hint = super::problem::did_you_mean(read, self.definitions.keys().copied());
            self.problems.hinted(place, format!("the unknown segment {}", quoted(read)), "a segment of this environment", hint);
            return false;
        };
        if let Some(start) = self.path.iter().position(|outer| *outer == read) {
            let cycle = way(self.path[start..].iter().copied().chain([read]));
            self.problems.found(place, format!("a segment that reads itself: {cycle}"), "no cycle");
            return false;
        }
        if self.path.len() >= limits::NESTING {
            self.problems.found(
                place,
                format!("segments within segments, {} levels", self.path.len() + 1),
                format!("at most {}", limits::NESTING),
            );
            return false;
        }
        match self.compile(read) {
            Some(compiled) => {
                inner.insert(read.into(), compiled);
                true
            }
            None => {
                self.problems.found(place, format!("the segment {} that has a problem itself", quoted(read)), "a segment without problems");
                false
            }
        }
    }

    fn finish(&mut self, key: &str, segment: &Segment, inner: Segments) -> Option<Arc<CompiledSegment>> {
        let mut problems = Problems::default();
        let Segment { description: _, included, excluded, when } = segment;
        let path = Path::ROOT;
        if !limits::is_key(key) {
            problems.found(path, quoted(key), "a key of 1 to 128 letters, digits, dots, underscores and hyphens");
        }
        let keys = included.len() + excluded.len();
        if keys > limits::SEGMENT_KEYS {
            problems.found(path, format!("{keys} keys"), format!("at most {}", limits::SEGMENT_KEYS));
        }
        if let Some(both) = excluded.iter().find(|key| included.contains(*key)) {
            problems.found(path.key("excluded"), format!("{}, which is included as well", quoted(both)), "a key in one of the lists");
        }
        let mut compiler = Compiler::new(&inner, &mut problems);
        compiler.conditions(when, path.key("when"));
        let (when, cost) = compiler.finish();
        let depth = 1 + when.segments.iter().map(|segment| segment.depth).max().unwrap_or_default();
        if depth > limits::NESTING {
            problems.found(path, format!("segments within segments, {depth} levels"), format!("at most {}", limits::NESTING));
        }
        if cost > limits::SEGMENT_COST {
            problems.found(
                path,
                format!("{cost} conditions, those of the segments within counted"),
                format!("at most {}", limits::SEGMENT_COST),
            );
        }
        let sound = problems.is_empty();
        self.problems.extend(problems.under(&Path::ROOT.key("segments").key(key).to_string()));
        sound.then(|| {
            let [included, excluded] = [included, excluded].map(|keys| KeySet::of(keys.iter().map(String::as_str)));
            Arc::new(CompiledSegment { key: key.into(), included, excluded, when, depth, cost })
        })
    }
}
