//! One generation of the last good state as a file: a header, then a protobuf message, each with its checksum.
//!
//! Format 2 names the environment and keeps, beside what was received, the last good version of what is rejected, and what this sidecar
//! killed by itself. Format 1 was the state alone; it is still read.

use std::io::{self, Seek, Write};

use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;

use crate::clock::Micros;
use crate::flag::{Digest, Item, Position, State};
use crate::replica::Saved;
use crate::wire::replication::Malformed;
use crate::wire::trip::Trip;
use crate::wire::v1;

const MAGIC: &[u8; 8] = b"YARDARM\n";
const FORMAT: u32 = 2;
const STATE_ALONE: u32 = 1;
/// Magic, format, number, epoch, revision, digest, freshness, length and checksum of the state, checksum of all that.
pub const HEADER: usize = MAGIC.len() + 4 + 8 + 8 + 8 + 16 + 8 + 8 + 4 + 4;

/// What can be said of a file without reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Counts the files that were written to this directory; the highest is the newest.
    pub number: u64,
    pub position: Position,
    format: u32,
    digest: Digest,
    fresh_us: Micros,
    length: u64,
    checksum: u32,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    pub number: u64,
    /// Whose state it is; empty when the file does not say.
    pub environment: String,
    pub saved: Saved,
    /// Last proof, before the file was written, that the newest state was held: Unix time, microseconds.
    pub fresh_us: Micros,
}

impl Generation {
    /// A file that does not say whose state it holds is believed.
    pub fn is_of(&self, environment: &str) -> bool {
        self.environment.is_empty() || self.environment == environment
    }
}

/// Why a file is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is shorter than a header: {0} bytes")]
    Short(usize),
    #[error("it does not begin like a state file")]
    Magic,
    #[error("it has format {0}, this version reads formats {STATE_ALONE} and {FORMAT}")]
    Format(u32),
    #[error("it holds {found} bytes of state, its header says {expected}")]
    Length { expected: u64, found: usize },
    #[error("its checksum is {found:08x}, its header says {expected:08x}: a byte was lost or changed")]
    Checksum { expected: u32, found: u32 },
    #[error("its state does not decode: {0}")]
    State(String),
}

/// What a file holds behind its header. Nobody but this file speaks it.
#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(message, optional, tag = "1")]
    state: Option<v1::State>,
    #[prost(message, repeated, tag = "2")]
    served: Vec<v1::Item>,
    #[prost(string, tag = "3")]
    environment: String,
    #[prost(message, repeated, tag = "4")]
    trips: Vec<v1::Trip>,
    #[prost(uint32, tag = "5")]
    pods: u32,
}

/// Items that are encoded together. All at once would be another copy of the environment in memory, at each save.
const TOGETHER: usize = 64;

/// Writes a file from its beginning; the header, which seals the rest, comes last.
///
/// A message is what the pieces of it add up to, so that a body in pieces is read like one that was written as a whole.
pub fn write(generation: Generation, out: &mut (impl Write + Seek)) -> io::Result<()> {
    let Generation { number, environment, saved: Saved { mut state, served, trips, pods }, fresh_us } = generation;
    let Position { epoch, revision } = state.position;
    let digest = state.digest.to_bytes();
    let mut items = std::mem::take(&mut state.items).into_iter();
    let (mut length, mut checksum, mut piece) = (0, crc32fast::Hasher::new(), Vec::new());
    out.write_all(&[0; HEADER])?;
    let (served, trips) = (served.into_iter().map(Into::into).collect(), trips.into_iter().map(Into::into).collect());
    let mut next = Body { state: Some(state.into()), served, environment, trips, pods };
    loop {
        piece.clear();
        next.encode_raw(&mut piece);
        out.write_all(&piece)?;
        checksum.update(&piece);
        length += piece.len() as u64;
        let items: Vec<v1::Item> = items.by_ref().take(TOGETHER).map(Into::into).collect();
        if items.is_empty() {
            break;
        }
        next = Body { state: Some(v1::State { items, ..v1::State::default() }), ..Body::default() };
    }
    let mut header = Vec::with_capacity(HEADER);
    header.put_slice(MAGIC);
    header.put_u32_le(FORMAT);
    header.put_u64_le(number);
    header.put_u64_le(epoch);
    header.put_u64_le(revision);
    header.put_slice(&digest);
    header.put_i64_le(fresh_us);
    header.put_u64_le(length);
    header.put_u32_le(checksum.finalize());
    header.put_u32_le(crc32fast::hash(&header));
    out.rewind()?;
    out.write_all(&header)
}

/// Reads the header from the beginning of a file.
pub fn header(file: &[u8]) -> Result<Header, Damage> {
    let bytes = file.get(..HEADER).ok_or(Damage::Short(file.len()))?;
    let mut header = bytes;
    if header.copy_to_bytes(MAGIC.len()) != MAGIC[..] {
        return Err(Damage::Magic);
    }
    let format = header.get_u32_le();
    let number = header.get_u64_le();
    let position = Position { epoch: header.get_u64_le(), revision: header.get_u64_le() };
    let mut digest = [0; 16];
    header.copy_to_slice(&mut digest);
    let fresh_us = header.get_i64_le();
    let length = header.get_u64_le();
    let checksum = header.get_u32_le();
    // First of all, because another format may have its checksum elsewhere.
    if !matches!(format, STATE_ALONE | FORMAT) {
        return Err(Damage::Format(format));
    }
    check(header.get_u32_le(), &bytes[..HEADER - 4])?;
    Ok(Header { number, position, format, digest: Digest::from_bytes(digest), fresh_us, length, checksum })
}

/// Definitions share the memory of `file`.
pub fn decode(file: Bytes) -> Result<Generation, Damage> {
    let Header { number, position, format, digest, fresh_us, length, checksum } = header(&file)?;
    let body = file.slice(HEADER..);
    if body.len() as u64 != length {
        return Err(Damage::Length { expected: length, found: body.len() });
    }
    check(checksum, &body)?;
    let decoded = match format {
        STATE_ALONE => v1::State::decode(body).map(|state| Body { state: Some(state), ..Body::default() }),
        _ => Body::decode(body),
    };
    let Body { state, served, environment, trips, pods } = decoded.map_err(|error| Damage::State(error.to_string()))?;
    let malformed = |malformed: Malformed| Damage::State(malformed.to_string());
    let state = State::try_from(state.unwrap_or_default()).map_err(malformed)?;
    let served = served.into_iter().map(Item::try_from).collect::<Result<_, _>>().map_err(malformed)?;
    let trips = trips.into_iter().map(Trip::try_from).collect::<Result<_, _>>().map_err(malformed)?;
    if (state.position, state.digest) != (position, digest) {
        return Err(Damage::State(format!("it is at {}, the header says {position}", state.position)));
    }
    Ok(Generation { number, environment, saved: Saved { state, served, trips, pods }, fresh_us })
}

fn check(expected: u32, bytes: &[u8]) -> Result<(), Damage> {
    match crc32fast::hash(bytes) {
        found if found == expected => Ok(()),
        found => Err(Damage::Checksum { expected, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{ItemName, Kill};

    fn encode(generation: Generation) -> Vec<u8> {
        let mut file = io::Cursor::new(Vec::new());
        write(generation, &mut file).unwrap();
        file.into_inner()
    }

    #[test]
    fn a_state_in_many_pieces_is_the_state() {
        let generation = generation();
        let item = &generation.saved.state.items[0];
        let items: Vec<_> = (0..1000).map(|number| Item { name: ItemName::flag(format!("flag-{number}")), ..item.clone() }).collect();
        let digest = Digest::of(&items, []);
        let state = State { items, digest, kills: Vec::new(), ..generation.saved.state };
        let generation = Generation { saved: Saved { state, ..generation.saved }, ..generation };
        assert_eq!(decode(Bytes::from(encode(generation.clone()))), Ok(generation));
    }

    fn generation() -> Generation {
        let item = Item { name: ItemName::flag("checkout"), revision: 3, definition: Bytes::from_static(b"{\"variants\":{}}") };
        let kill = Kill { flag_key: "checkout".into(), revision: 4, killed: true, actor: "ana".into(), reason: "errors".into(), at_us: 9 };
        let digest = Digest::of([&item], [&kill]);
        let position = Position { epoch: 7, revision: 4 };
        let served = vec![Item { revision: 2, definition: Bytes::from_static(b"{}"), ..item.clone() }];
        let state = State { position, items: vec![item], kills: vec![kill], digest, origin_time_us: 8 };
        let trips = vec![Trip::sample("checkout", position, 3)];
        Generation { number: 5, environment: "prod".into(), saved: Saved { state, served, trips, pods: 812 }, fresh_us: 10 }
    }

    #[test]
    fn a_state_comes_back_as_it_was_written() {
        assert_eq!(decode(encode(generation()).into()), Ok(generation()));
    }

    #[test]
    fn no_flipped_bit_is_believed() {
        let file = encode(generation());
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                assert!(decode(flipped.into()).is_err(), "bit {bit} of byte {at} of {} was flipped and believed", file.len());
            }
        }
    }

    #[test]
    fn no_torn_file_is_believed() {
        let file = encode(generation());
        for length in 0..file.len() {
            assert!(decode(Bytes::copy_from_slice(&file[..length])).is_err(), "{length} of {} bytes were believed", file.len());
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(matches!(decode(longer.into()), Err(Damage::Length { .. })));
    }

    #[test]
    fn a_newer_format_says_that_it_is_one() {
        let mut file = encode(generation());
        file[MAGIC.len()] = 3;
        assert_eq!(decode(file.into()), Err(Damage::Format(3)));
    }

    /// Written by hand as the version before wrote it.
    #[test]
    fn a_state_of_the_format_before_is_read_and_says_of_no_environment() {
        let Generation { number, saved: Saved { state, .. }, fresh_us, .. } = generation();
        let body = v1::State::from(state.clone()).encode_to_vec();
        let mut file = MAGIC.to_vec();
        file.put_u32_le(1);
        file.put_u64_le(number);
        file.put_u64_le(state.position.epoch);
        file.put_u64_le(state.position.revision);
        file.put_slice(&state.digest.to_bytes());
        file.put_i64_le(fresh_us);
        file.put_u64_le(body.len() as u64);
        file.put_u32_le(crc32fast::hash(&body));
        file.put_u32_le(crc32fast::hash(&file));
        file.extend(body);
        assert_eq!(decode(file.into()), Ok(Generation { number, environment: String::new(), saved: state.into(), fresh_us }));
    }
}
