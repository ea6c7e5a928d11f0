//! What is kept of evidence, in a store of its own, and in which spelling.
//!
//! ```text
//! log/{n}                                         one commit: reports, pushes and flags that were forgotten, in order
//! evidence/{env}/{flag}/head                      a flag as of the last checkpoint: epochs, totals, reach, pushed metrics
//! evidence/{env}/{flag}/units/{revision}/{chunk}  units of an epoch, 50,000 each
//! sender/{n}                                      what one start of a sidecar had counted
//! ```
//! A report is appended to the log as it came, which is one write however many units it has; once the log has grown, a checkpoint writes what
//! changed and empties it, in one transaction. A start reads the checkpoint and applies the log.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::control::store::{Batch, Entry, Error, Range};
use crate::flag::Revision;
use crate::wire::evidence::{Metric, Report, Shape, Unit};
use crate::wire::v1;

use super::FlagName;
use super::book::{Book, Sender, SenderName};
use super::epoch::Epoch;
use super::flag::{FlagEvidence, Pushed, Summary};
use super::reach::Reach;
use super::units::CROSSOVER;

const CHUNK: usize = 50_000;

/// One thing that happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Report(Report),
    Push(FlagName, String, Pushed),
    Forget(FlagName),
}

const REPORT: u8 = 0;
const PUSH: u8 = 1;
const FORGET: u8 = 2;

impl Event {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, content) = match self {
            Self::Report(report) => (REPORT, v1::ReportRequest::from(report).encode_to_vec()),
            Self::Push(flag, metric, pushed) => (PUSH, to_json(&(flag, metric, pushed))),
            Self::Forget(flag) => (FORGET, to_json(flag)),
        };
        let mut bytes = Vec::with_capacity(content.len() + 5);
        bytes.put_u8(tag);
        bytes.put_u32(content.len() as u32);
        bytes.put_slice(&content);
        bytes
    }

    fn decode(rest: &mut Bytes) -> Result<Self, Error> {
        if rest.len() < 5 {
            return Err(damaged("an entry of the log"));
        }
        let (tag, length) = (rest.get_u8(), rest.get_u32() as usize);
        if rest.len() < length {
            return Err(damaged("an entry of the log"));
        }
        let content = rest.split_to(length);
        match tag {
            REPORT => report(content).map(Self::Report),
            PUSH => from_json(&content, "a pushed metric").map(|(flag, metric, pushed)| Self::Push(flag, metric, pushed)),
            FORGET => from_json(&content, "a flag that is gone").map(Self::Forget),
            _ => Err(damaged("an entry of the log")),
        }
    }

    /// What whoever asked for it is told.
    pub(super) fn apply(self, book: &mut Book, at_us: i64) -> bool {
        match self {
            Self::Report(report) => book.report(&report, at_us),
            Self::Push(flag, metric, pushed) => book.push(flag, metric, pushed),
            Self::Forget(flag) => {
                book.forget(&flag);
                true
            }
        }
    }
}

fn report(bytes: Bytes) -> Result<Report, Error> {
    let request = v1::ReportRequest::decode(bytes).map_err(|problem| Error::corrupt(format!("evidence: a report: {problem}")))?;
    Report::try_from(request).map_err(|problem| Error::corrupt(format!("evidence: a report: {problem}")))
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("evidence: {what} cannot be read"))
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|problem| Error::corrupt(format!("evidence: {what}: {problem}")))
}

/// Only maps with keys that are no text cannot be spelt in JSON, and there are none.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

pub(super) fn log(number: u64) -> String {
    format!("log/{number:016x}")
}

pub(super) fn logs() -> Range {
    Range::under("log/")
}

/// One commit. `events` are encoded.
pub(super) fn log_entry(at_us: i64, events: &[Vec<u8>]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(8 + events.iter().map(Vec::len).sum::<usize>());
    entry.put_i64(at_us);
    events.iter().for_each(|event| entry.put_slice(event));
    entry
}

pub(super) fn replay(book: &mut Book, Entry { value, .. }: Entry) -> Result<(), Error> {
    let mut rest = value;
    if rest.len() < 8 {
        return Err(damaged("an entry of the log"));
    }
    let at_us = rest.get_i64();
    while !rest.is_empty() {
        Event::decode(&mut rest)?.apply(book, at_us);
    }
    Ok(())
}

pub(super) fn flag_range(FlagName { environment, key }: &FlagName) -> Range {
    Range::under(format!("evidence/{environment}/{key}/"))
}

#[derive(Serialize, Deserialize)]
struct Head {
    flag: FlagName,
    epochs: BTreeMap<Revision, EpochHead>,
    totals: BTreeMap<Revision, Summary>,
    pushed: BTreeMap<String, Pushed>,
    reach: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct EpochHead {
    metrics: Vec<(String, char)>,
    variants: Vec<String>,
    first_us: i64,
    last_us: i64,
    refused: u64,
}

const SHAPES: [(Shape, char); 3] = [(Shape::Share, 's'), (Shape::Mean, 'm'), (Shape::Ratio, 'r')];

impl EpochHead {
    fn of(epoch: &Epoch) -> Self {
        let letter = |shape: Shape| SHAPES.iter().find(|(known, _)| *known == shape).map_or('s', |(_, letter)| *letter);
        Self {
            metrics: epoch.metrics.iter().map(|metric| (metric.name.clone(), letter(metric.shape))).collect(),
            variants: epoch.variants.clone(),
            first_us: epoch.first_us,
            last_us: epoch.last_us,
            refused: epoch.units.refused,
        }
    }

    fn epoch(self) -> Option<Epoch> {
        let shape = |letter: char| SHAPES.iter().find(|(_, known)| *known == letter).map(|(shape, _)| *shape);
        let metrics = self.metrics.into_iter().map(|(name, letter)| Some(Metric { name, shape: shape(letter)? }));
        let mut epoch = Epoch::new(metrics.collect::<Option<_>>()?, self.first_us);
        (epoch.variants, epoch.last_us, epoch.units.refused) = (self.variants, self.last_us, self.refused);
        Some(epoch)
    }
}

/// What changed since the last one, and an empty log.
pub(super) fn checkpoint(book: &Book) -> Batch {
    let mut batch = Batch::default();
    for (name, flag) in book.flags.iter().filter(|(_, flag)| flag.is_changed) {
        put_flag(&mut batch, name, flag);
    }
    batch.delete_range(Range::under("sender/"));
    put_senders(&mut batch, book);
    batch.delete_range(logs());
    batch
}

fn put_flag(batch: &mut Batch, name: &FlagName, flag: &FlagEvidence) {
    let FlagName { environment, key } = name;
    let head = Head {
        flag: name.clone(),
        epochs: flag.epochs.iter().map(|(revision, epoch)| (*revision, EpochHead::of(epoch))).collect(),
        totals: flag.totals.clone(),
        pushed: flag.pushed.clone(),
        reach: flag.reach.encode(),
    };
    batch.delete_range(flag_range(name));
    batch.put(format!("evidence/{environment}/{key}/head"), to_json(&head));
    for (revision, epoch) in &flag.epochs {
        let mut records = epoch.units.records(epoch.metrics.len()).peekable();
        for chunk in 0.. {
            if records.peek().is_none() {
                break;
            }
            let mut variants: BTreeMap<u16, Vec<v1::UnitRecord>> = BTreeMap::new();
            records.by_ref().take(CHUNK).for_each(|(variant, unit)| variants.entry(variant).or_default().push((&unit).into()));
            // By the places of the variants and not by their names: units of several variants have none.
            let variants = variants.into_iter().map(|(variant, units)| v1::VariantEvidence {
                variant: variant.to_string(),
                units,
                ..Default::default()
            });
            let units = v1::EpochEvidence { revision: *revision, variants: variants.collect(), ..Default::default() };
            batch.put(format!("evidence/{environment}/{key}/units/{revision:016x}/{chunk:08x}"), units.encode_to_vec());
        }
    }
}

/// Of each sender, one report that says what all of its reports said of counters.
fn put_senders(batch: &mut Batch, book: &Book) {
    let mut epochs: BTreeMap<u32, BTreeMap<(&FlagName, Revision, u32), v1::EpochEvidence>> = BTreeMap::new();
    for (name, flag) in &book.flags {
        for (revision, epoch) in &flag.epochs {
            for (&(variant, metric), counters) in &epoch.counters {
                let Some(variant) = epoch.variants.get(variant) else { continue };
                for ((sender, life), counts) in counters.sources() {
                    let of_sender = epochs.entry(sender).or_default().entry((name, *revision, life));
                    let evidence = of_sender.or_insert_with(|| v1::EpochEvidence {
                        flag_key: name.key.clone(),
                        revision: *revision,
                        life,
                        sampling_rate: 1.0,
                        metrics: epoch.metrics.iter().map(Into::into).collect(),
                        variants: Vec::new(),
                    });
                    let counter = v1::CounterEvidence {
                        metric: metric as u32,
                        n: counts.n,
                        k: counts.k,
                        n_raw: counts.n_raw,
                        k_raw: counts.k_raw,
                        failing: Vec::new(),
                    };
                    match evidence.variants.iter_mut().find(|held| held.variant == *variant) {
                        Some(held) => held.counters.push(counter),
                        None => evidence.variants.push(v1::VariantEvidence {
                            variant: variant.clone(),
                            counters: vec![counter],
                            ..Default::default()
                        }),
                    }
                }
            }
        }
    }
    for (SenderName { environment, instance, boot }, Sender { number, seq, last_us }) in &book.senders {
        let report = v1::ReportRequest {
            environment: environment.clone(),
            identity: Some(v1::Identity { instance: instance.clone(), ..Default::default() }),
            boot: boot.to_vec(),
            seq: *seq,
            epochs: epochs.remove(number).unwrap_or_default().into_values().collect(),
        };
        let mut bytes = Vec::with_capacity(8 + report.encoded_len());
        bytes.put_i64(*last_us);
        bytes.put_slice(&report.encode_to_vec());
        batch.put(format!("sender/{number:08x}"), bytes);
    }
}

/// An entry under `evidence/`; heads come before units, by their names.
pub(super) fn load_flag(book: &mut Book, Entry { key, value }: Entry) -> Result<(), Error> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts[..] {
        [_, _, _, "head"] => {
            let Head { flag, epochs, totals, pushed, reach } = from_json(&value, "a flag")?;
            let epochs = epochs.into_iter().map(|(revision, head)| Some((revision, head.epoch()?)));
            let epochs = epochs.collect::<Option<_>>().ok_or_else(|| damaged("a metric"))?;
            let reach = Reach::decode(reach).ok_or_else(|| damaged("who was reached"))?;
            book.flags.insert(flag, FlagEvidence { epochs, totals, reach, pushed, is_changed: false });
            Ok(())
        }
        [_, environment, key, "units", ..] => {
            let name = FlagName { environment: environment.to_owned(), key: key.to_owned() };
            let units = v1::EpochEvidence::decode(value).map_err(|_| damaged("a chunk of units"))?;
            let epoch = book.flags.get_mut(&name).and_then(|flag| flag.epochs.get_mut(&units.revision));
            let Epoch { metrics, units: known, .. } = epoch.ok_or_else(|| damaged("a chunk of units"))?;
            for v1::VariantEvidence { variant, units, .. } in units.variants {
                let variant = variant.parse().map_err(|_| damaged("a chunk of units"))?;
                for record in units {
                    let unit = Unit::read(record, metrics).map_err(|_| damaged("a unit"))?;
                    known.merge(&unit, variant, metrics, usize::MAX);
                }
            }
            Ok(())
        }
        _ => Err(damaged("an entry")),
    }
}

pub(super) fn load_sender(book: &mut Book, Entry { value, .. }: Entry) -> Result<(), Error> {
    let mut rest = value;
    if rest.len() < 8 {
        return Err(damaged("a sidecar"));
    }
    let last_us = rest.get_i64();
    let mut report = report(rest)?;
    // Counters of epochs that were given up since are nobody's.
    report.epochs.retain(|epoch| {
        let name = FlagName { environment: report.environment.clone(), key: epoch.flag.clone() };
        book.epoch(&name, epoch.revision).is_some()
    });
    book.report(&report, last_us);
    Ok(())
}

const _: () = assert!(CROSSOVER == u16::MAX, "the places of variants are written as they are");
