//! Where documents are made: by one task, for as long as anybody follows them, each selection once for all its subscribers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::flag::{Obstacle, overridden};
use crate::lifecycle::Shutdown;
use crate::replica::{ChangeKind, Changes, Cursor, Replica, Sheets};
use crate::sidecar::grpc::{draining, not_ready};
use crate::wire::evaluation::selection::Selection;
use crate::wire::evaluation::sync::Configuration;

use super::Counts;
use super::fragment::Fragment;

/// Between two editions, unless there is a kill among the changes. Java's provider keeps five messages that it has not dealt with and loses
/// further ones, and a burst of changes is one document as well as many.
const PACE: Duration = Duration::from_millis(50);

/// For a first state, as flagd waits for its sources.
pub(super) const FIRST_STATE_WITHIN: Duration = Duration::from_secs(5);

/// Of one document. A selection that has more is refused.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;

/// What the gRPC libraries of clients take, unless they are told otherwise. Such a document is sent all the same.
const USUALLY_TAKEN_BYTES: usize = 4 * 1024 * 1024;

/// Keys that the metadata name; of more they say how many.
const NAMED: usize = 100;

/// What is told besides flags.
#[derive(Debug, Clone)]
pub(in crate::sidecar) struct Told {
    pub(in crate::sidecar) context: Map<String, Json>,
    /// False: flagd's `--disable-sync-metadata`.
    pub(in crate::sidecar) has_metadata: bool,
    pub(in crate::sidecar) stream_deadline: Option<Duration>,
}

pub(in crate::sidecar) struct Press {
    replica: Replica,
    environment: String,
    told: Told,
    pub(in crate::sidecar) counts: Counts,
    /// Few: those that are followed.
    views: Mutex<Vec<(Selection, Arc<View>)>>,
    wanted: Notify,
    /// Editions so far.
    printed: watch::Sender<u64>,
    left_out: ArcSwap<Vec<Arc<str>>>,
    /// That a document is more than clients usually take was logged, which is enough once.
    is_size_told: AtomicBool,
}

/// What those see who select the same.
pub(super) struct View {
    edition: ArcSwapOption<Edition>,
    /// The change up to which the edition is what there is, by the number of [`Replica::changed`], and one more: 0 for no edition.
    as_of: AtomicU64,
}

/// A document, until it changes.
pub(super) struct Edition {
    pub(super) number: u64,
    /// `Err`: its bytes, which are too many.
    configuration: Result<Configuration, usize>,
}

/// What the task keeps from one edition to the next.
#[derive(Default)]
struct Plates {
    fragments: BTreeMap<Arc<str>, Fragment>,
    /// Definitions that were left out with a line in the log.
    logged: HashMap<Arc<str>, (Bytes, Obstacle)>,
    cursor: Option<Cursor>,
}

impl Press {
    pub(in crate::sidecar) fn new(replica: Replica, environment: String, told: Told) -> Self {
        Self {
            replica,
            environment,
            told,
            counts: Counts::default(),
            views: Mutex::default(),
            wanted: Notify::new(),
            printed: watch::Sender::new(0),
            left_out: ArcSwap::default(),
            is_size_told: AtomicBool::new(false),
        }
    }

    pub(in crate::sidecar) fn told(&self) -> &Told {
        &self.told
    }

    /// Wakes at each edition.
    pub(in crate::sidecar) fn printed(&self) -> watch::Receiver<u64> {
        self.printed.subscribe()
    }

    /// Keys of the flags that are in no document, joined.
    pub(super) fn left_out(&self) -> Option<String> {
        let keys = self.left_out.load();
        let (named, more) = keys.split_at(keys.len().min(NAMED));
        let named: Vec<&str> = named.iter().map(|held_as| overridden::key(held_as)).collect();
        let named = named.join(",");
        match (named.is_empty(), more.len()) {
            (true, _) => None,
            (false, 0) => Some(named),
            (false, more) => Some(format!("{named},and {more} more")),
        }
    }

    pub(super) fn view(&self, selection: &Selection) -> Arc<View> {
        let mut views = self.views.lock();
        if let Some((_, view)) = views.iter().find(|(known, _)| known == selection) {
            return Arc::clone(view);
        }
        let view = Arc::new(View { edition: ArcSwapOption::empty(), as_of: AtomicU64::new(0) });
        views.push((selection.clone(), Arc::clone(&view)));
        view
    }

    /// The change that an edition must have seen to be told to who asks now.
    pub(super) fn now(&self) -> u64 {
        *self.replica.changed().borrow() + 1
    }

    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// The document that is true when it is asked for.
    pub(super) async fn current(&self, selection: &Selection, shutdown: &Shutdown) -> Result<Arc<Edition>, Status> {
        let (view, now) = (self.view(selection), self.now());
        let mut printed = self.printed();
        let edition = async {
            loop {
                if let Some(edition) = view.as_of(now) {
                    return Ok(edition);
                }
                self.want();
                if printed.changed().await.is_err() {
                    return Err(draining());
                }
            }
        };
        tokio::select! {
            edition = edition => edition,
            () = tokio::time::sleep(FIRST_STATE_WITHIN) => Err(not_ready()),
            () = shutdown.requested() => Err(draining()),
        }
    }

    /// Until the shutdown.
    pub(in crate::sidecar) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut changed = self.replica.changed();
        let mut plates = Plates::default();
        let mut next = Instant::now();
        loop {
            let is_changed = tokio::select! {
                Ok(()) = changed.changed() => true,
                () = self.wanted.notified() => false,
                () = shutdown.requested() => return,
            };
            // At each turn: who asks once for each of many selections leaves nothing behind.
            let is_left = self.is_left();
            if is_changed && is_left {
                // Whoever comes next begins anew.
                plates.fragments.clear();
                continue;
            }
            if !self.replica.is_usable() {
                continue;
            }
            while !self.is_urgent(&plates) && Instant::now() < next {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    Ok(()) = changed.changed() => {}
                    () = self.wanted.notified() => {}
                    () = shutdown.requested() => return,
                }
            }
            let as_of = *changed.borrow_and_update() + 1;
            let press = Arc::clone(&self);
            // It may take a good part of a second for a large environment that nobody has followed yet.
            let printed = tokio::task::spawn_blocking(move || {
                press.print(&mut plates, as_of);
                plates
            });
            plates = match printed.await {
                Ok(plates) => plates,
                Err(error) => {
                    tracing::error!(%error, "making a document for sync broke off; it is made anew at the next change");
                    Plates::default()
                }
            };
            next = Instant::now() + PACE;
            self.printed.send_modify(|printed| *printed += 1);
        }
    }

    /// Forgets what nobody follows; says whether nothing is followed.
    fn is_left(&self) -> bool {
        let mut views = self.views.lock();
        views.retain(|(_, view)| Arc::strong_count(view) > 1);
        views.is_empty()
    }

    /// Somebody has no document at all yet, or there is a kill that was not sent.
    fn is_urgent(&self, plates: &Plates) -> bool {
        let Some(cursor) = plates.cursor else { return true };
        if self.views.lock().iter().any(|(_, view)| view.as_of.load(Ordering::Acquire) == 0) {
            return true;
        }
        let Changes { notes, lost, .. } = self.replica.changes_after(cursor, 0);
        lost || notes.iter().any(|(kind, _)| *kind == ChangeKind::Killed)
    }

    fn print(&self, plates: &mut Plates, as_of: u64) {
        // Before the flags are read: a kill that comes between is sent twice and never not at all.
        plates.cursor = Some(self.replica.cursor().without_prerequisites());
        let sheets = self.replica.sheets();
        plates.take(&sheets, &self.environment);
        self.tell(plates, &sheets);
        let views = self.views.lock().clone();
        let mut largest = 0;
        for (selection, view) in views {
            let fragments = plates.selected(&selection, &self.environment);
            let len = DOCUMENT[0].len() + DOCUMENT[1].len() + fragments.iter().map(|json| json.len() + 1).sum::<usize>()
                - usize::from(!fragments.is_empty());
            largest = largest.max(len);
            let before = view.edition.load_full();
            let configuration = match len {
                ..=MAX_DOCUMENT_BYTES => Ok(Configuration::new(len, &self.told.context, |out| write(&fragments, out))),
                _ => Err(len),
            };
            if !before.as_ref().is_some_and(|before| is_same(&before.configuration, &configuration)) {
                let number = self.counts.editions.fetch_add(1, Ordering::Relaxed) + 1;
                view.edition.store(Some(Arc::new(Edition { number, configuration })));
            }
            view.as_of.store(as_of, Ordering::Release);
        }
        self.counts.document_bytes.store(largest, Ordering::Relaxed);
        if largest > USUALLY_TAKEN_BYTES && !self.is_size_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                document_bytes = largest,
                usually_taken_bytes = USUALLY_TAKEN_BYTES,
                "a document for in-process clients is larger than what gRPC's libraries take by default: raise the limit in each client \
                 (`grpc.max_receive_message_length`, in Java `maxInboundMessageSize`, in Go `MaxCallRecvMsgSize`, for a flagd `maxMsgSize` \
                 of its source), or have it select fewer flags; this is said once"
            );
        }
    }

    /// What is left out: a line for each definition, the metrics, and the metadata.
    fn tell(&self, plates: &mut Plates, sheets: &Sheets) {
        let mut counts = [0; Obstacle::ALL.len()];
        let mut keys = Vec::new();
        for sheet in sheets.iter() {
            let Some(Fragment { json: Err(obstacle), .. }) = plates.fragments.get(&sheet.key) else {
                plates.logged.remove(&sheet.key);
                continue;
            };
            counts[*obstacle as usize] += 1;
            keys.push(Arc::clone(&sheet.key));
            let said = plates.logged.insert(Arc::clone(&sheet.key), (sheet.definition.clone(), *obstacle));
            if said.is_none_or(|(definition, before)| definition != sheet.definition || before != *obstacle) {
                tracing::warn!(
                    flag = overridden::key(&sheet.key),
                    because = obstacle.in_words(),
                    "a flag is left out of what in-process clients are sent"
                );
            }
        }
        plates.logged.retain(|key, _| plates.fragments.contains_key(key));
        for (count, counted) in counts.into_iter().zip(&self.counts.left_out) {
            counted.store(count, Ordering::Relaxed);
        }
        self.left_out.store(Arc::new(keys));
    }
}

/// Around the flags.
const DOCUMENT: [&str; 2] = [r#"{"flags":{"#, "}}"];

fn write(fragments: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(DOCUMENT[0].as_bytes());
    for (index, fragment) in fragments.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(fragment.as_bytes());
    }
    out.extend_from_slice(DOCUMENT[1].as_bytes());
}

fn is_same(before: &Result<Configuration, usize>, now: &Result<Configuration, usize>) -> bool {
    match (before, now) {
        (Ok(before), Ok(now)) => before.document() == now.document(),
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

impl Plates {
    fn take(&mut self, sheets: &Sheets, environment: &str) {
        let mut before = std::mem::take(&mut self.fragments);
        for sheet in sheets.iter() {
            let kept = before.remove(&sheet.key).filter(|fragment| fragment.holds(sheet, sheets));
            let fragment = kept.unwrap_or_else(|| Fragment::of(sheet, sheets, environment));
            self.fragments.insert(Arc::clone(&sheet.key), fragment);
        }
    }

    fn selected(&self, selection: &Selection, environment: &str) -> Vec<&str> {
        let is_taken = |held_as: &str, fragment: &Fragment| match selection.is_all() {
            // Of a key that several sets have, whoever selects nothing gets the one that is held under it.
            true => !overridden::is_place(held_as),
            false => selection.takes(&fragment.definition, environment),
        };
        let taken = self.fragments.iter().filter(|(held_as, fragment)| is_taken(held_as, fragment));
        // What is held under its own key comes last and stays.
        let by_key: BTreeMap<&str, &Fragment> = taken.map(|(held_as, fragment)| (overridden::key(held_as), fragment)).collect();
        by_key.into_values().filter_map(|fragment| fragment.json.as_deref().ok()).collect()
    }
}

impl View {
    /// The edition, if it has seen this change.
    pub(super) fn as_of(&self, change: u64) -> Option<Arc<Edition>> {
        if self.as_of.load(Ordering::Acquire) < change { None } else { self.edition.load_full() }
    }

    pub(super) fn latest(&self) -> Option<Arc<Edition>> {
        self.edition.load_full()
    }
}

impl Edition {
    pub(super) fn configuration(&self) -> Result<&Configuration, Status> {
        self.configuration.as_ref().map_err(|bytes| {
            let said = format!("the selected flags are a document of {bytes} bytes, at most {MAX_DOCUMENT_BYTES} are sent: select fewer");
            Status::resource_exhausted(said)
        })
    }
}
