//! Many watchers of one flag: connections of their own or many streams on one, and some that stop reading.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use prost::Message as _;
use prost::encoding::decode_varint;
use tokio::task::JoinSet;

use super::arrivals::{Arrivals, now_us};
use super::http2::{Connection, Event, Question, Window};
use super::load::{framed, unframed};
use super::socket::{Address, Socket};
use crate::wire::v1::watch_flags_request::Detail;
use crate::wire::v1::{FlagChange, FlagSelector, WatchFlagsRequest, WatchFlagsResponse, watch_flags_response};

const WATCH: Question = Question::Call("/yardarm.v1.Evaluation/WatchFlags");
const READ_BYTES: usize = 64 * 1024;
/// First bytes of a WatchFlagsResponse: the tag of its only field.
const SNAPSHOT: u8 = 0x0a;
const CHANGE: u8 = 0x12;

/// Readers of their own task each, on the thread that made them.
#[derive(Debug)]
pub struct Watchers {
    pub reading: usize,
    pub seen: Rc<Seen>,
    connections: JoinSet<anyhow::Result<()>>,
    /// Connected, asked, and never read again.
    stalled: Vec<Socket>,
}

/// What the readers of a group have seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub snapshots: Arrivals,
    /// By revision of the flag.
    pub changes: Arrivals,
    /// The first message of the newest revision.
    newest: RefCell<(u64, Vec<u8>)>,
}

impl Watchers {
    /// Opens `reading` watches of `flag_key`, up to `streams` of them on a connection, spread over the addresses; `stalled` connections more
    /// stop reading at once. Returns when every reader holds its snapshot.
    pub async fn open(addresses: &[Address], reading: usize, streams: usize, stalled: usize, flag_key: &str) -> anyhow::Result<Self> {
        let request = WatchFlagsRequest {
            selector: Some(FlagSelector { keys: vec![flag_key.to_owned()], ..Default::default() }),
            detail: Detail::Definitions.into(),
            heartbeat_ms: 60_000,
            ..Default::default()
        };
        let body: Rc<[u8]> = framed(&request.encode_to_vec()).into();
        let mut watchers = Self { reading, seen: Rc::default(), connections: JoinSet::new(), stalled: Vec::new() };
        watchers.seen.snapshots.expect(reading);
        watchers.seen.changes.expect(reading);
        let turns = || addresses.iter().cycle();
        for address in turns().take(stalled) {
            watchers.stalled.push(stall(address, &body).await?);
        }
        for (address, first) in turns().zip((0..reading).step_by(streams)) {
            let streams = streams.min(reading - first);
            let socket = Socket::connect(address).await.with_context(|| format!("cannot connect to {address:?}"))?;
            watchers.connections.spawn_local(read(socket, streams, Rc::clone(&body), Rc::clone(&watchers.seen)));
        }
        let seen = Rc::clone(&watchers.seen);
        watchers.unless_one_fails(seen.snapshots.wait(0)).await?;
        Ok(watchers)
    }

    /// When each reader had the change that was committed with this revision.
    pub async fn everyone(&mut self, revision: u64) -> anyhow::Result<Vec<i64>> {
        let seen = Rc::clone(&self.seen);
        self.unless_one_fails(seen.changes.wait(revision)).await
    }

    /// Waits for `work`, or for the first watcher that fails.
    async fn unless_one_fails<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            done = work => done,
            Some(ended) = self.connections.join_next() => ended?.and_then(|()| bail!("the sidecar closed a watcher's connection")),
        }
    }

    /// The change of the newest revision, as the first watcher got it, and how many bytes it was on the wire.
    pub fn change(&self) -> anyhow::Result<(FlagChange, usize)> {
        let (_, bytes) = &*self.seen.newest.borrow();
        match WatchFlagsResponse::decode(bytes.as_slice())?.event {
            // An HTTP/2 frame header and a gRPC one.
            Some(watch_flags_response::Event::Change(change)) => Ok((change, bytes.len() + 9 + 5)),
            other => bail!("a change was expected, found {other:?}"),
        }
    }
}

async fn stall(address: &Address, body: &[u8]) -> anyhow::Result<Socket> {
    let socket = Socket::connect(address).await?;
    let mut connection = Connection::new(&WATCH, Window::Stalled);
    connection.ask(body).context("a fresh connection has no room for one question")?;
    socket.write_all(&mut connection.outbox).await?;
    Ok(socket)
}

async fn read(socket: Socket, streams: usize, body: Rc<[u8]>, seen: Rc<Seen>) -> anyhow::Result<()> {
    let mut connection = Connection::new(&WATCH, Window::Wide);
    let mut inboxes: HashMap<u32, Vec<u8>> = HashMap::with_capacity(streams);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        while inboxes.len() < streams
            && let Some(stream) = connection.ask(&body)
        {
            inboxes.insert(stream, Vec::new());
        }
        let read = socket.exchange(&mut connection.outbox, &mut buffer).await?;
        let at_us = now_us();
        if read == 0 {
            return Ok(());
        }
        let (mut over, mut wrong) = (false, None);
        connection.received(&buffer[..read], |event| match event {
            Event::Data { stream, bytes } => {
                let Some(inbox) = inboxes.get_mut(&stream) else { return };
                inbox.extend_from_slice(bytes);
                let mut rest = inbox.as_slice();
                while let Some((message, after)) = unframed(rest) {
                    wrong = wrong.take().or(seen.message(message, at_us).err());
                    rest = after;
                }
                let used = inbox.len() - rest.len();
                inbox.drain(..used);
            }
            Event::End { .. } => over = true,
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
        if over {
            bail!("the sidecar ended a watch");
        }
    }
}

impl Seen {
    fn message(&self, message: &[u8], at_us: i64) -> anyhow::Result<()> {
        match message.first() {
            Some(&SNAPSHOT) => self.snapshots.arrived(0, at_us),
            Some(&CHANGE) => {
                let revision = revision(message).context("a change has no flag with a revision")?;
                let mut newest = self.newest.borrow_mut();
                if newest.0 < revision {
                    *newest = (revision, message.to_vec());
                }
                self.changes.arrived(revision, at_us);
            }
            _ => {}
        }
        Ok(())
    }
}

/// WatchFlagsResponse.change.flag.revision, without the definition behind it: a thousand readers on one thread must not keep each other
/// waiting.
fn revision(message: &[u8]) -> Option<u64> {
    let mut flag = field(message, 2).and_then(|change| field(change, 2))?;
    while !flag.is_empty() {
        let key = decode_varint(&mut flag).ok()?;
        let value = decode_varint(&mut flag).ok()?;
        match (key >> 3, key & 7) {
            (2, 0) => return Some(value),
            (_, 2) => flag = flag.get(usize::try_from(value).ok()?..)?,
            (_, 0) => {}
            _ => return None,
        }
    }
    None
}

/// The content of the first field of that number with a length.
fn field(mut message: &[u8], number: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let key = decode_varint(&mut message).ok()?;
        let length = decode_varint(&mut message).ok()?;
        if key & 7 == 2 {
            let (content, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
            if key >> 3 == number {
                return Some(content);
            }
            message = rest;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::{FlagState, Position};

    #[test]
    fn the_revision_of_a_change_is_that_of_its_flag() {
        let flag = FlagState { key: "checkout".to_owned(), revision: 300, definition: vec![b'x'; 700].into(), ..Default::default() };
        // Where a watch may resume is before the change.
        let position = Position { epoch: 7, revision: 299 };
        let change = FlagChange { r#type: 2, flag: Some(flag), position: Some(position), origin_time: None };
        let message = WatchFlagsResponse { event: Some(watch_flags_response::Event::Change(change)) }.encode_to_vec();
        assert_eq!(message[0], CHANGE);
        assert_eq!(revision(&message), Some(300));
        assert_eq!(revision(&message[..8]), None);
    }
}
