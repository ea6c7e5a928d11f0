//! The one task that writes: what a source said becomes a change, and is logged with what is wrong in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock::{Clock as _, SystemClock};
use crate::flag::{Assumed, Naming, Problems, Scalar, Tolerated};
use crate::lifecycle::{Shutdown, Token};
use crate::replica::{Rejected, Writer};

use super::Report;
use super::merge::{Change, Merge, News};

/// How often it is said that what is held is what the sources say, which `maxStaleness` counts from.
const CONFIRM: Duration = Duration::from_secs(1);

/// A larger document is read on a thread of its own: meanwhile a small one would wait.
const SMALL_BYTES: usize = 64 * 1024;

/// Of the problems of a document, so many are logged one by one.
const LOGGED: usize = 20;

pub(super) struct Owner {
    names: Vec<Arc<str>>,
    /// Each until its source has said something.
    tokens: Vec<Option<Token>>,
    lost: Vec<bool>,
    /// What each said last could not be read.
    unusable: Vec<bool>,
    merge: Merge,
    writer: Writer,
    assumed: Assumed,
    /// The revision that the writer did not take: it is not tried again before the next change.
    refused: Option<u64>,
    /// What was told of flags that do not compile.
    rejected: BTreeSet<String>,
    /// Keys of flags of which it was told before that they cannot be read.
    unread: BTreeSet<String>,
}

impl Owner {
    pub(super) fn new(names: Vec<Arc<str>>, tokens: Vec<Token>, writer: Writer, assumed: Assumed) -> Self {
        let merge = Merge::new(names.len(), rand::random());
        let (lost, unusable) = (vec![true; names.len()], vec![false; names.len()]);
        let tokens = tokens.into_iter().map(Some).collect();
        Self { names, tokens, lost, unusable, merge, writer, assumed, refused: None, rejected: BTreeSet::new(), unread: BTreeSet::new() }
    }

    pub(super) async fn run(mut self, mut reports: mpsc::Receiver<(usize, Report)>, shutdown: Shutdown) {
        if self.names.is_empty() {
            // Without a source there are no flags, which is a state.
            let change = self.merge.take(0, News::default(), now_us());
            self.write(change);
        }
        let mut confirm = interval(CONFIRM);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let aged = self.writer.age_is_told_in();
            if aged == Some(Duration::ZERO) {
                self.writer.tell_of_age();
                continue;
            }
            tokio::select! {
                () = sleep(aged.unwrap_or_default()), if aged.is_some() => {}
                Some((source, report)) = reports.recv() => self.hear(source, report).await,
                _ = confirm.tick() => self.confirm(),
                () = shutdown.requested() => return,
            }
        }
    }

    async fn hear(&mut self, source: usize, report: Report) {
        let (Some(name), Some(lost)) = (self.names.get(source).cloned(), self.lost.get_mut(source)) else { return };
        match report {
            Report::Lost(why) => {
                if !std::mem::replace(lost, true) || self.tokens[source].is_some() {
                    tracing::warn!(source = %name, "the source cannot be read: {why}; what it said last is served, and it is tried again");
                }
                return;
            }
            // It is what could not be read.
            Report::Unchanged if self.unusable[source] => return,
            Report::Unchanged => {}
            Report::Document(text) => match read(text, self.assumed).await {
                Ok(tolerated) => {
                    self.unusable[source] = false;
                    self.take(source, &name, tolerated);
                }
                Err(problems) => {
                    *lost = true;
                    self.unusable[source] = true;
                    tracing::warn!(source = %name, "the document cannot be read, what it said before is served: {}", line(&problems));
                    return;
                }
            },
        }
        if std::mem::replace(&mut self.lost[source], false) && self.tokens[source].is_none() {
            tracing::info!(source = %name, "the source is read again");
        }
        if let Some(token) = self.tokens[source].take() {
            token.done();
        }
    }

    fn take(&mut self, source: usize, name: &Arc<str>, tolerated: Tolerated) {
        let Tolerated { flags, unreadable, segments, problems } = tolerated;
        flags.iter().filter(|(_, flag)| flag.is_some()).for_each(|(key, _)| _ = self.unread.remove(key));
        for problem in problems.iter().take(LOGGED) {
            tracing::warn!(source = %name, "{problem}; it is served as it was before, or not at all");
        }
        if problems.len() > LOGGED {
            tracing::warn!(source = %name, "and {} problems more", problems.len() - LOGGED);
        }
        let mut news = News::default();
        for (key, flag) in flags {
            let Some(mut flag) = flag else {
                // What can be no key is no flag either, and could be the place of another ([`crate::flag::overridden`]).
                if !Naming::Flagds.takes_key(&key) {
                    continue;
                }
                self.unread.insert(key.clone());
                news.unread_flags.insert(key);
                continue;
            };
            flag.source = Some(name.to_string());
            let set = match flag.metadata.get("flagSetId") {
                Some(Scalar::String(set)) => set.clone(),
                Some(_) | None => String::new(),
            };
            let definition = Bytes::from(flag.to_canonical_json());
            if unreadable.contains(&key) {
                news.unread_flags.insert(key.clone());
                news.unreadable.insert((key, set), definition);
            } else {
                news.flags.insert((key, set), definition);
            }
        }
        news.segments =
            segments.into_iter().map(|(key, segment)| (key, segment.map(|segment| Bytes::from(segment.to_canonical_json())))).collect();
        let before = self.merge.revision();
        let change = self.merge.take(source, news, now_us());
        self.write(change);
        if self.merge.revision() != before {
            let flags = self.writer.replica().len();
            tracing::info!(source = %name, revision = self.merge.revision(), flags, "flags of the source are served");
        }
    }

    fn write(&mut self, change: Change) {
        let applied = match change {
            Change::None => return,
            Change::Whole(state) => self.writer.apply_snapshot(state),
            Change::Edit(delta) => self.writer.apply_delta(delta).or_else(|refused| {
                tracing::warn!(%refused, "a change could not be applied by itself; everything is applied anew");
                self.writer.apply_snapshot(self.merge.state(now_us()))
            }),
        };
        match applied {
            Ok(applied) => self.tell_rejected(&applied.rejected),
            Err(refused) => {
                self.refused = Some(self.merge.revision());
                tracing::error!(%refused, "the flags of the sources together cannot be held; what was held is served");
            }
        }
    }

    /// Each once, until it compiles.
    fn tell_rejected(&mut self, rejected: &[Rejected]) {
        let is_news = |one: &&Rejected| !self.unread.contains(&one.name.key);
        let told: BTreeSet<String> = rejected.iter().filter(is_news).map(|one| one.message.clone()).collect();
        for message in told.difference(&self.rejected) {
            tracing::warn!("{message}; what was held of the flag before is served");
        }
        self.rejected = told;
    }

    fn confirm(&mut self) {
        if self.merge.revision() > 0
            && self.refused != Some(self.merge.revision())
            && !self.lost.contains(&true)
            && let Err(refused) = self.writer.confirm_fresh(self.merge.position(), self.merge.digest())
        {
            tracing::warn!(%refused, "what is held is not what the sources say; everything is applied anew");
            self.write(Change::Whole(self.merge.state(now_us())));
        }
    }
}

async fn read(text: String, assumed: Assumed) -> Result<Tolerated, Problems> {
    if text.len() <= SMALL_BYTES {
        return Tolerated::parse(&text, assumed);
    }
    let read = tokio::task::spawn_blocking(move || Tolerated::parse(&text, assumed)).await;
    // It ends early only with the runtime.
    read.unwrap_or_else(|_| Err(Problems::default()))
}

/// The first problem, and how many more there are.
fn line(problems: &Problems) -> String {
    let first = problems.iter().next().map(ToString::to_string).unwrap_or_default();
    match problems.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more)", more - 1),
    }
}

fn now_us() -> i64 {
    SystemClock::new().now_us()
}
