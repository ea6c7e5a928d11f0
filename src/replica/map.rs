//! The read side: one dashmap that serves, and a header that says where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::clock::{Clock, Micros};
use crate::flag::{CompiledFlag, Digest, Lookup, Naming, Position, Revision, ValueType, metro64, overridden};
use crate::wire::evaluation::{encode_value, flagd};
use crate::wire::trip::Trip;

use super::changes::{ChangeList, Changes, Cursor};
use super::outcome::Rejected;
use super::segments::Served;
use super::slot::Slot;

/// One flag as it is served.
#[derive(Debug, Clone)]
pub struct Held {
    pub flag: CompiledFlag,
    /// Revision of the last change of the flag, of a segment that it reads, or of its kill: the state at this revision and the context
    /// replay a decision.
    pub revision: Revision,
    /// Canonical JSON of the definition that is served.
    pub definition: Bytes,
    /// The same without the kill.
    pub(super) base_revision: Revision,
    pub(super) objects: Option<Arc<[Bytes]>>,
    /// See [`Held::number`].
    number: u64,
    /// See [`Held::flagd`].
    flagd: OnceLock<Arc<flagd::Definition>>,
}

/// The next [`Held::number`].
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Held {
    pub(super) fn new(flag: CompiledFlag, revision: Revision, definition: Bytes, base_revision: Revision) -> Self {
        let objects =
            (flag.kind() == ValueType::Object).then(|| flag.variants().iter().map(|variant| encode_value(&variant.value)).collect());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { flag, revision, definition, base_revision, objects, number, flagd: OnceLock::new() }
    }

    /// The same flag with another kill.
    pub(super) fn with_kill(self, killed: bool, revision: Revision) -> Self {
        Self { flag: self.flag.with_kill(killed), revision, number: NEXT.fetch_add(1, Ordering::Relaxed), ..self }
    }

    /// Of no other flag, definition or kill in this process: what was worked out for it may be kept under its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Revision of the last change of the flag or of a segment that it reads: what is measured belongs to it, whatever kills came since.
    pub fn base_revision(&self) -> Revision {
        self.base_revision
    }

    /// What the definition says to flagd's clients alone, read when the first of them asks.
    pub fn flagd(&self) -> &Arc<flagd::Definition> {
        self.flagd.get_or_init(|| Arc::new(flagd::Definition::of(&self.definition)))
    }

    /// Of a flag of objects: the value of each variant, in the order of their names, encoded once for every answer.
    pub fn objects(&self) -> Option<&[Bytes]> {
        self.objects.as_deref()
    }
}

/// The flags of an environment in memory. Clones share them.
#[derive(Clone)]
pub struct Replica(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) naming: Naming,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) flags: DashMap<Arc<str>, Slot, BuildHasherDefault<KeyHasher>>,
    /// For flags that were loaded from disk and not compiled yet: the segments of that state. Empty once all were compiled.
    pub(super) segments: ArcSwap<Served>,
    /// The same keys in order, for prefixes and for batches of everything.
    pub(super) keys: RwLock<BTreeSet<Arc<str>>>,
    pub(super) header: ArcSwap<Header>,
    /// What this sidecar killed by itself, and what nobody has decided about since.
    pub(super) trips: ArcSwap<Trips>,
    /// See [`Replica::pods`].
    pub(super) pods: AtomicU32,
    /// Time of the last proof that the newest state is held.
    pub(super) fresh_us: AtomicI64,
    /// Odd while a change becomes visible.
    pub(super) sequence: AtomicU64,
    /// Held by the writer while a change becomes visible, and by a batch that met changes too often.
    pub(super) turnstile: Mutex<()>,
    pub(super) changes: RwLock<ChangeList>,
    pub(super) changed: watch::Sender<u64>,
}

/// Metro over the bytes of a key, which come in one piece. The byte that ends every `str` it leaves out: there is nothing behind a key.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= metro64(bytes);
    }

    #[inline]
    fn write_u8(&mut self, _end: u8) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub(super) position: Position,
    pub(super) digest: Digest,
    pub(super) usable: bool,
    pub(super) rejected: Arc<[Rejected]>,
}

/// By flag.
pub(super) type Trips = BTreeMap<String, Trip>;

/// Tries of a batch before it asks the writer to wait.
const OPTIMISTIC_TRIES: usize = 4;

impl Replica {
    pub(super) fn empty(naming: Naming, clock: Arc<dyn Clock>) -> Self {
        let fresh_us = AtomicI64::new(clock.now_us());
        Self(Arc::new(Inner {
            naming,
            clock,
            flags: DashMap::default(),
            segments: ArcSwap::default(),
            keys: RwLock::default(),
            header: ArcSwap::default(),
            trips: ArcSwap::default(),
            pods: AtomicU32::new(0),
            fresh_us,
            sequence: AtomicU64::new(0),
            turnstile: Mutex::new(()),
            changes: RwLock::default(),
            changed: watch::Sender::new(0),
        }))
    }

    /// Reads one flag under the guard of its shard. `read` must not touch the replica again: a writer that waits for the shard would stop
    /// both. A flag with prerequisites is cloned out first, see [`CompiledFlag::has_prerequisites`].
    pub fn with<R>(&self, key: &str, read: impl FnOnce(Option<&Held>) -> R) -> R {
        match self.0.flags.get(key) {
            Some(slot) => read(slot.held(self.0.naming, key, &self.0.segments)),
            None => read(None),
        }
    }

    /// Reads many flags from one state: `read` never sees half of a change. It may be run more than once; only the last result counts.
    pub fn batch<R>(&self, mut read: impl FnMut(&View<'_>) -> R) -> R {
        for _ in 0..OPTIMISTIC_TRIES {
            let before = self.0.sequence.load(Ordering::Acquire);
            if before % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            let result = read(&View { replica: self, header: self.0.header.load_full() });
            fence(Ordering::Acquire);
            if self.0.sequence.load(Ordering::Relaxed) == before {
                return result;
            }
        }
        let _turn = self.0.turnstile.lock();
        read(&View { replica: self, header: self.0.header.load_full() })
    }

    /// For the prerequisites of a flag that was cloned out of [`Replica::with`].
    pub fn lookup(&self) -> Lookups<'_> {
        Lookups(self)
    }

    pub fn position(&self) -> Position {
        self.0.header.load().position
    }

    pub fn digest(&self) -> Digest {
        self.0.header.load().digest
    }

    /// A state was applied, from the control plane or from disk.
    pub fn is_usable(&self) -> bool {
        self.0.header.load().usable
    }

    /// Definitions that the control plane sent and that are not served.
    pub fn rejected(&self) -> Arc<[Rejected]> {
        self.0.header.load().rejected.clone()
    }

    /// Flags that this sidecar has killed by itself while the control plane was out of reach.
    pub fn trips(&self) -> Vec<Trip> {
        self.0.trips.load().values().cloned().collect()
    }

    pub fn tripped(&self) -> usize {
        self.0.trips.load().len()
    }

    /// Sidecars of the environment, as the control plane last said; 0 when it never did.
    pub fn pods(&self) -> u32 {
        self.0.pods.load(Ordering::Relaxed)
    }

    /// Time since the last proof that the newest state is held; since the start, when there never was one.
    pub fn age(&self) -> Duration {
        let age_us = self.0.clock.now_us() - self.fresh_us();
        Duration::from_micros(age_us.max(0) as u64)
    }

    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX)
    }

    /// Now, in seconds.
    pub fn unix_s(&self) -> i64 {
        self.0.clock.now_us().div_euclid(1_000_000)
    }

    /// When that proof came: Unix time in microseconds.
    pub fn fresh_us(&self) -> Micros {
        self.0.fresh_us.load(Ordering::Relaxed)
    }

    pub fn len(&self) -> usize {
        self.0.flags.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.flags.is_empty()
    }

    /// Wakes on each change, with a number that only grows.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Where a reader that lists the flags next goes on afterwards: take it before the list, so that nothing falls between.
    pub fn cursor(&self) -> Cursor {
        self.0.changes.read().head()
    }

    /// Where a reader that had seen everything up to `position` goes on; `None` when that is too long ago or was another epoch.
    pub fn resume(&self, position: Position) -> Option<Cursor> {
        self.0.changes.read().resume(position)
    }

    /// The latest state of each key that changed after the cursor, kills first, about `limit` of them.
    pub fn changes_after(&self, cursor: Cursor, limit: usize) -> Changes {
        self.0.changes.read().after(cursor, limit)
    }
}

/// One state, for the time of a [`Replica::batch`].
pub struct View<'r> {
    replica: &'r Replica,
    header: Arc<Header>,
}

impl View<'_> {
    pub fn position(&self) -> Position {
        self.header.position
    }

    pub fn with<R>(&self, key: &str, read: impl FnOnce(Option<&Held>) -> R) -> R {
        self.replica.with(key, read)
    }

    /// All keys that start with `prefix`, in order; every key for an empty one.
    pub fn keys(&self, prefix: &str) -> Vec<Arc<str>> {
        self.places(prefix.max(overridden::END), prefix)
    }

    /// Where the flags of this key are held that others override.
    pub fn overridden(&self, key: &str) -> Vec<Arc<str>> {
        let prefix = overridden::places(key);
        self.places(&prefix, &prefix)
    }

    /// Where all flags are held, those of [`View::overridden`] first.
    pub fn all(&self) -> Vec<Arc<str>> {
        self.places("", "")
    }

    fn places(&self, from: &str, prefix: &str) -> Vec<Arc<str>> {
        let keys = self.replica.0.keys.read();
        let from = (Bound::Included(from), Bound::Unbounded);
        keys.range::<str, _>(from).take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub fn lookup(&self) -> Lookups<'_> {
        self.replica.lookup()
    }

    /// Now, in seconds.
    pub fn unix_s(&self) -> i64 {
        self.replica.unix_s()
    }
}

/// Flags by key, each cloned out of its guard.
#[derive(Clone, Copy)]
pub struct Lookups<'r>(&'r Replica);

impl Lookup for Lookups<'_> {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.0.with(key, |held| held.map(|held| held.flag.clone()))
    }

    fn age_ms(&self) -> u64 {
        self.0.age_ms()
    }

    fn unix_s(&self) -> i64 {
        self.0.unix_s()
    }
}
