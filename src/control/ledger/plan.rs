//! What a change of definitions would do, decided on paper: parsed beforehand, compiled against a copy of what it touches, refused with
//! every problem at once. Nothing here waits or locks, so that compiling a large document holds up nobody.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::environment::{Environment, Totals};
use super::error::nearest;
use crate::control::audit::Action;
use crate::control::stored::Decision;
use crate::flag::{
    Document, Flag, ItemKind, ItemName, Kill, Position, Problem, Problems, Revision, Segment, Segments, Test, check_environment, compile,
    limits,
};
use crate::rollout::State;

/// A change that is not yet one: it has no revision.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub environment: String,
    pub action: Action,
    /// For the audit record.
    pub detail: String,
    /// Where the environment was when the draft was made; `None`: the draft creates it.
    pub seen: Option<Position>,
    pub upserts: Vec<Upsert>,
    pub removed: Vec<ItemName>,
    pub kills: Vec<KillEdit>,
    pub rollouts: Vec<RolloutEdit>,
    /// All segments compiled, when one of them changes.
    pub segments: Option<Segments>,
    /// Revision to answer when there is nothing to do.
    pub stands: Revision,
}

/// Where a rollout is after the change; `None`: the flag has none any more.
#[derive(Debug, Clone)]
pub(super) struct RolloutEdit {
    pub flag: String,
    pub state: Option<State>,
    /// What decided it.
    pub decision: Option<Decision>,
}

#[derive(Debug, Clone)]
pub(super) struct Upsert {
    pub name: ItemName,
    pub definition: Bytes,
    pub refers_to: Vec<ItemName>,
}

#[derive(Debug, Clone)]
pub(super) enum KillEdit {
    Set(String),
    Lift(String),
    /// From another environment, with its author.
    Carry(Kill),
}

/// An item of a document, parsed. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub name: ItemName,
    pub canonical: Bytes,
    parsed: Parsed,
}

#[derive(Debug, Clone)]
enum Parsed {
    Flag(Arc<Flag>),
    Segment(Arc<Segment>),
}

/// All that a change of definitions has to be checked against, taken from an environment in one short look.
#[derive(Debug)]
pub(super) struct Basis {
    seen: Position,
    changed: Vec<Definition>,
    removed: Vec<ItemName>,
    /// Every segment that stays as it is, when one of them changes.
    all_segments: BTreeMap<String, Bytes>,
    segments: Segments,
    /// Unchanged flags that read a changed segment.
    readers: BTreeMap<String, Bytes>,
    /// Unchanged flags that are prerequisites of changed ones or have them as such, directly or not; and for each prerequisite that is
    /// not there the one whose name is nearest, so that it can be proposed.
    neighbours: BTreeMap<String, Bytes>,
    totals: Totals,
    /// The newest change of what the document names.
    stands: Revision,
}

const SMALL_BYTES: usize = 8 << 10;
const SMALL_NEIGHBOURS: usize = 16;

/// What can be read of a document. Without a problem that is all of it.
pub(super) fn definitions(document: &str) -> (Vec<Definition>, Problems) {
    let (read, problems) = Document::parse_partly(document);
    let Document { flags, segments, .. } = read.unwrap_or_default();
    let segments = segments.into_iter().map(|(key, segment)| Definition::segment(key, segment));
    let flags = flags.into_iter().map(|(key, flag)| Definition::flag(key, flag));
    (segments.chain(flags).filter(|definition| limits::is_key(&definition.name.key)).collect(), problems)
}

impl Definition {
    pub(super) fn flag(key: String, flag: Flag) -> Self {
        Self { name: ItemName::flag(key), canonical: flag.to_canonical_json().into(), parsed: Parsed::Flag(Arc::new(flag)) }
    }

    pub(super) fn segment(key: String, segment: Segment) -> Self {
        Self { name: ItemName::segment(key), canonical: segment.to_canonical_json().into(), parsed: Parsed::Segment(Arc::new(segment)) }
    }

    /// As it was stored.
    pub(super) fn parse(name: &ItemName, canonical: &[u8]) -> Result<Self, Problems> {
        match name.kind {
            ItemKind::Flag => Ok(Self::flag(name.key.clone(), Flag::from_json(canonical)?)),
            ItemKind::Segment => Ok(Self::segment(name.key.clone(), Segment::from_json(canonical)?)),
        }
    }

    pub(super) fn as_segment(&self) -> Option<&Segment> {
        match &self.parsed {
            Parsed::Segment(segment) => Some(segment),
            Parsed::Flag(_) => None,
        }
    }

    pub(super) fn as_flag(&self) -> Option<&Flag> {
        match &self.parsed {
            Parsed::Flag(flag) => Some(flag),
            Parsed::Segment(_) => None,
        }
    }

    pub(super) fn refers_to(&self) -> Vec<ItemName> {
        let (prerequisites, conditions): (Vec<_>, Vec<_>) = match &self.parsed {
            Parsed::Flag(flag) => (flag.prerequisites.iter().collect(), flag.rules.iter().flat_map(|rule| &rule.when).collect()),
            Parsed::Segment(segment) => (Vec::new(), segment.when.iter().collect()),
        };
        let flags = prerequisites.into_iter().map(|prerequisite| ItemName::flag(&prerequisite.flag));
        let segments = conditions.into_iter().filter_map(|condition| segment_of(&condition.test)).map(ItemName::segment);
        flags.chain(segments).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn check_size(&self, problems: &mut Problems) {
        let (place, most) = match self.name.kind {
            ItemKind::Flag => ("flags", limits::FLAG_BYTES),
            ItemKind::Segment => ("segments", limits::SEGMENT_BYTES),
        };
        limit(&format!("{place}.{}", self.name.key), self.canonical.len(), most, "bytes of canonical JSON", problems);
    }

    /// What other flags can rely on: names of variants, and what it asks of others itself.
    fn looks_like(&self, other: &Flag) -> bool {
        let same = |flag: &Flag| flag.prerequisites == other.prerequisites && flag.variants.keys().eq(other.variants.keys());
        self.as_flag().is_some_and(same)
    }
}

impl Basis {
    pub(super) fn gather(environment: &Environment, definitions: &[Definition], removed: &[ItemName]) -> Self {
        let is_changed = |definition: &&Definition| environment.definition(&definition.name) != Some(&definition.canonical);
        let changed: Vec<Definition> = definitions.iter().filter(is_changed).cloned().collect();
        let names: BTreeSet<&ItemName> = changed.iter().map(|definition| &definition.name).collect();
        let found = |names: BTreeSet<ItemName>| -> BTreeMap<String, Bytes> {
            let definition = |name: ItemName| Some((name.key.clone(), environment.definition(&name)?.clone()));
            names.into_iter().filter(|name| name.kind == ItemKind::Flag).filter_map(definition).collect()
        };

        let changed_segments: BTreeSet<&ItemName> =
            names.iter().copied().chain(removed).filter(|name| name.kind == ItemKind::Segment).collect();
        let all_segments = match changed_segments.is_empty() {
            true => BTreeMap::new(),
            false => environment
                .items
                .values()
                .filter(|item| item.name.kind == ItemKind::Segment && !changed_segments.contains(&item.name))
                .map(|item| (item.name.key.clone(), item.definition.clone()))
                .collect(),
        };
        let mut readers = environment.links.flags_that_read(changed_segments);
        readers.retain(|reader| !names.contains(reader));

        let mut totals = environment.totals;
        for definition in &changed {
            if let Some(before) = environment.items.get(&definition.name) {
                totals.take_away(before.name.kind, before.definition.len());
            }
            totals.add(definition.name.kind, definition.canonical.len());
        }
        let newest = definitions.iter().filter_map(|definition| environment.items.get(&definition.name)).map(|item| item.revision).max();
        Self {
            seen: environment.head.position,
            neighbours: found(neighbours(environment, &changed)),
            readers: found(readers),
            changed,
            removed: removed.to_vec(),
            all_segments,
            segments: environment.segments.clone(),
            totals,
            stands: newest.unwrap_or_default(),
        }
    }

    /// Whether it is checked in well under a millisecond.
    pub(super) fn is_small(&self) -> bool {
        let bytes: usize = self.changed.iter().map(|definition| definition.canonical.len()).sum();
        bytes <= SMALL_BYTES && self.all_segments.is_empty() && self.readers.len() + self.neighbours.len() <= SMALL_NEIGHBOURS
    }

    /// Compiles all that changes and all that depends on it.
    pub(super) fn check(self, environment: String, action: Action, detail: String) -> Result<Draft, Problems> {
        let Self { seen, changed, removed, all_segments, segments, readers, neighbours, totals, stands } = self;
        let mut problems = Problems::default();
        totals.check(&mut problems);
        changed.iter().for_each(|definition| definition.check_size(&mut problems));

        let mut touched = changed.iter().map(|definition| &definition.name).chain(&removed);
        let recompiled = match touched.any(|name| name.kind == ItemKind::Segment) {
            true => Some(recompile(&all_segments, &changed, &mut problems)),
            false => None,
        };
        let segments = recompiled.as_ref().unwrap_or(&segments);
        let readers = parse(readers, &mut problems);
        let flags: BTreeMap<&str, &Flag> =
            changed.iter().filter_map(|definition| Some((definition.name.key.as_str(), definition.as_flag()?))).collect();
        for (key, flag) in flags.iter().map(|(key, flag)| (*key, *flag)).chain(readers.iter().map(|(key, flag)| (key.as_str(), flag))) {
            if let Err(found) = compile(key, flag, segments) {
                problems.extend(found);
            }
        }
        let neighbours = parse(neighbours, &mut problems);
        let mut world: BTreeMap<String, Cow<'_, Flag>> = neighbours.into_iter().map(|(key, flag)| (key, Cow::Owned(flag))).collect();
        world.extend(flags.into_iter().map(|(key, flag)| (key.to_owned(), Cow::Borrowed(flag))));
        // Whether segments are there was told by `compile`; here every name that occurs passes for one.
        let nothing = Segment::default();
        let rules = world.values().flat_map(|flag| &flag.rules).flat_map(|rule| &rule.when);
        let named: BTreeMap<String, &Segment> =
            rules.filter_map(|condition| Some((segment_of(&condition.test)?.to_owned(), &nothing))).collect();
        if let Err(found) = check_environment(&world, &named) {
            problems.extend(found);
        }
        problems.into_result(())?;
        let upsert =
            |definition: Definition| Upsert { refers_to: definition.refers_to(), name: definition.name, definition: definition.canonical };
        let upserts = changed.into_iter().map(upsert).collect();
        let (seen, kills, rollouts, segments) = (Some(seen), Vec::new(), Vec::new(), recompiled);
        Ok(Draft { environment, action, detail, seen, upserts, removed, kills, rollouts, segments, stands })
    }
}

fn segment_of(test: &Test) -> Option<&str> {
    match test {
        Test::Segment(key) => Some(key),
        Test::Attribute { .. } => None,
    }
}

impl Draft {
    pub(super) fn is_nothing(&self) -> bool {
        self.seen.is_some() && self.upserts.is_empty() && self.removed.is_empty() && self.kills.is_empty() && self.rollouts.is_empty()
    }
}

/// Whom the laws between flags can hold against a changed one.
fn neighbours(environment: &Environment, changed: &[Definition]) -> BTreeSet<ItemName> {
    let mut around = BTreeSet::new();
    for definition in changed {
        for wanted in definition.refers_to().into_iter().filter(|name| name.kind == ItemKind::Flag) {
            let is_there = environment.items.contains_key(&wanted) || changed.iter().any(|definition| definition.name == wanted);
            let nearest = if is_there { None } else { nearest(&wanted.key, environment.keys(ItemKind::Flag)) };
            around.insert(nearest.map_or(wanted, ItemName::flag));
        }
        let before = environment.definition(&definition.name).and_then(|canonical| Flag::from_json(canonical).ok());
        if before.is_none_or(|before| !definition.looks_like(&before)) {
            around.extend(dependents(environment, &definition.name));
        }
    }
    environment.links.closure(around)
}

/// Flags that have this one as a prerequisite, directly or not.
fn dependents(environment: &Environment, name: &ItemName) -> BTreeSet<ItemName> {
    let mut found = BTreeSet::new();
    let mut open = vec![name.clone()];
    while let Some(name) = open.pop() {
        for user in environment.links.users(&name).filter(|user| user.kind == ItemKind::Flag) {
            if found.insert(user.clone()) {
                open.push(user.clone());
            }
        }
    }
    found
}

fn recompile(all: &BTreeMap<String, Bytes>, changed: &[Definition], problems: &mut Problems) -> Segments {
    let mut parsed = BTreeMap::new();
    for (key, canonical) in all {
        match Segment::from_json(canonical) {
            Ok(segment) => drop(parsed.insert(key.clone(), segment)),
            Err(found) => problems.extend(found.under(&format!("segments.{key}"))),
        }
    }
    let replaced = changed.iter().filter_map(|definition| Some((definition.name.key.clone(), definition.as_segment()?.clone())));
    parsed.extend(replaced);
    let (segments, found) = Segments::compile(parsed.iter().map(|(key, segment)| (key.as_str(), segment)));
    problems.extend(found);
    segments
}

fn parse(flags: BTreeMap<String, Bytes>, problems: &mut Problems) -> BTreeMap<String, Flag> {
    let mut parsed = BTreeMap::new();
    for (key, canonical) in flags {
        match Flag::from_json(&canonical) {
            Ok(flag) => drop(parsed.insert(key, flag)),
            Err(found) => problems.extend(found.under(&format!("flags.{key}"))),
        }
    }
    parsed
}

impl Totals {
    fn check(self, problems: &mut Problems) {
        limit("flags", self.flags, limits::ENVIRONMENT_FLAGS, "flags in the environment", problems);
        limit("segments", self.segments, limits::ENVIRONMENT_SEGMENTS, "segments in the environment", problems);
        limit("", self.bytes, limits::ENVIRONMENT_BYTES, "bytes of definitions in the environment", problems);
    }
}

fn limit(path: &str, found: usize, most: usize, what: &str, problems: &mut Problems) {
    if found > most {
        let (path, found, expected) = (path.to_owned(), format!("{found} {what}"), format!("at most {most}"));
        problems.push(Problem { path, line: None, found, expected, hint: None });
    }
}
