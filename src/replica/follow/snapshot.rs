//! Joins the chunks of a snapshot. Whatever does not fit is refused before it takes memory.

use std::io::Read as _;

use bytes::Bytes;
use lz4_flex::frame::FrameDecoder;
use prost::Message as _;

use crate::flag::{Position, State};
use crate::wire::v1;

/// Longest state that is decoded, bytes: the 32 MiB of definitions of the largest environment, and as much again for keys, kills and
/// framing.
pub const STATE_BYTES: u64 = 64 << 20;
/// Longest chunk, bytes. The control plane sends half of it.
const CHUNK_BYTES: usize = 64 << 10;
/// Room for one message of a stream: a delta of 1 MiB and what is around it.
pub const MESSAGE_BYTES: usize = 2 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is refused: {0}")]
pub struct Refused(String);

fn refused<T>(problem: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(problem.into()))
}

/// Chunks so far.
#[derive(Debug, Default)]
pub struct Joiner {
    position: Position,
    count: u32,
    next: u32,
    encoding: i32,
    state_bytes: u64,
    data: Vec<u8>,
}

/// All chunks, not yet decoded: that takes a while and belongs on another thread.
#[derive(Debug)]
pub struct Joined {
    position: Position,
    encoding: i32,
    state_bytes: u64,
    data: Vec<u8>,
}

impl Joiner {
    /// Takes the next chunk; the first one of a snapshot begins anew. After an error nothing is held.
    pub fn push(&mut self, chunk: v1::SnapshotChunk) -> Result<Option<Joined>, Refused> {
        let result = self.take(chunk);
        if result.is_err() {
            *self = Self::default();
        }
        result
    }

    fn take(&mut self, chunk: v1::SnapshotChunk) -> Result<Option<Joined>, Refused> {
        let v1::SnapshotChunk { position, index, count, data, crc32, encoding, state_bytes } = chunk;
        let Some(position) = position.map(Position::from) else { return refused("a chunk has no position") };
        if index == 0 {
            *self = Self { position, count, next: 0, encoding, state_bytes, data: Vec::new() };
        }
        if (position, count, encoding, state_bytes) != (self.position, self.count, self.encoding, self.state_bytes) {
            return refused(format!("chunk {index} is of another snapshot"));
        }
        if index != self.next || index >= count {
            return refused(format!("chunk {index} of {count} came, expected {}", self.next));
        }
        if data.is_empty() || data.len() > CHUNK_BYTES {
            return refused(format!("chunk {index} has {} bytes, expected 1 to {CHUNK_BYTES}", data.len()));
        }
        let found = crc32fast::hash(&data);
        if found != crc32 {
            return refused(format!("chunk {index} has checksum {found:08x}, expected {crc32:08x}"));
        }
        // What compresses badly grows a little.
        if state_bytes > STATE_BYTES || (self.data.len() + data.len()) as u64 > state_bytes + state_bytes / 64 + 1024 {
            return refused(format!("it is longer than it says, or than {STATE_BYTES} bytes"));
        }
        self.data.extend_from_slice(&data);
        self.next += 1;
        if self.next < count {
            return Ok(None);
        }
        let Self { position, encoding, state_bytes, data, .. } = std::mem::take(self);
        Ok(Some(Joined { position, encoding, state_bytes, data }))
    }
}

impl Joined {
    /// Bytes, as they came.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Definitions share the memory of the decoded state.
    pub fn decode(self) -> Result<State, Refused> {
        let Self { position, encoding, state_bytes, data } = self;
        let body = match v1::snapshot_chunk::Encoding::try_from(encoding) {
            Ok(v1::snapshot_chunk::Encoding::Plain) => data,
            Ok(v1::snapshot_chunk::Encoding::Lz4Frame) => decompress(&data, state_bytes)?,
            Err(_) => return refused(format!("{encoding} is no encoding")),
        };
        if body.len() as u64 != state_bytes {
            return refused(format!("it has {} bytes, expected {state_bytes}", body.len()));
        }
        let state = v1::State::decode(Bytes::from(body)).map_err(|error| Refused(error.to_string()))?;
        let state = State::try_from(state).map_err(|malformed| Refused(malformed.to_string()))?;
        if state.position != position {
            return refused(format!("its chunks say {position}, its state {}", state.position));
        }
        Ok(state)
    }
}

/// Stops one byte beyond what was announced: a few bytes of lz4 can stand for gigabytes.
fn decompress(data: &[u8], expected: u64) -> Result<Vec<u8>, Refused> {
    let mut body = Vec::with_capacity(usize::try_from(expected.min(STATE_BYTES)).unwrap_or_default());
    let decoder = FrameDecoder::new(data);
    decoder.take(expected + 1).read_to_end(&mut body).map_err(|error| Refused(format!("its lz4 frame is damaged: {error}")))?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use lz4_flex::frame::FrameEncoder;

    use super::*;
    use crate::flag::{Digest, Item, ItemName};

    fn state() -> State {
        let items: Vec<_> = (0..300)
            .map(|n| Item { name: ItemName::flag(format!("flag-{n}")), revision: n, definition: Bytes::from_static(b"{\"a\":1}") })
            .collect();
        let digest = Digest::of(&items, []);
        State { position: Position { epoch: 3, revision: 300 }, items, kills: Vec::new(), digest, origin_time_us: 1 }
    }

    fn lz4(body: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn cut(data: &[u8], size: usize, encoding: i32, state_bytes: u64) -> Vec<v1::SnapshotChunk> {
        let count = data.len().div_ceil(size) as u32;
        let chunk = |(index, data): (usize, &[u8])| v1::SnapshotChunk {
            position: Some(state().position.into()),
            index: index as u32,
            count,
            data: Bytes::copy_from_slice(data),
            crc32: crc32fast::hash(data),
            encoding,
            state_bytes,
        };
        data.chunks(size).enumerate().map(chunk).collect()
    }

    fn chunks() -> Vec<v1::SnapshotChunk> {
        let body = v1::State::from(state()).encode_to_vec();
        cut(&lz4(&body), 200, 1, body.len() as u64)
    }

    fn join(chunks: Vec<v1::SnapshotChunk>) -> Result<State, Refused> {
        let mut joiner = Joiner::default();
        let mut joined = None;
        for chunk in chunks {
            joined = joiner.push(chunk)?;
        }
        joined.map_or_else(|| refused("chunks are missing"), Joined::decode)
    }

    #[test]
    fn chunks_join_to_the_state() {
        assert!(chunks().len() > 3);
        assert_eq!(join(chunks()), Ok(state()));
    }

    #[test]
    fn a_snapshot_that_begins_anew_leaves_nothing_of_the_one_before() {
        let mut again = chunks();
        again.truncate(2);
        again.extend(chunks());
        assert_eq!(join(again), Ok(state()));
    }

    #[test]
    fn lost_repeated_mixed_and_damaged_chunks_are_refused() {
        type Damage = fn(&mut Vec<v1::SnapshotChunk>);
        let damages: [(&str, Damage); 11] = [
            ("lost first", |chunks| drop(chunks.remove(0))),
            ("lost", |chunks| drop(chunks.remove(1))),
            ("lost last", |chunks| drop(chunks.pop())),
            ("repeated", |chunks| chunks.insert(1, chunks[1].clone())),
            ("out of order", |chunks| chunks.swap(1, 2)),
            ("no position", |chunks| chunks[1].position = None),
            ("another position", |chunks| chunks[1].position = Some(Position::default().into())),
            ("another count", |chunks| chunks[1].count += 1),
            ("flipped bit", |chunks| chunks[1].crc32 ^= 1),
            ("empty", |chunks| chunks[1].data = Bytes::new()),
            ("unknown encoding", |chunks| chunks.iter_mut().for_each(|chunk| chunk.encoding = 9)),
        ];
        for (name, damage) in damages {
            let mut damaged = chunks();
            damage(&mut damaged);
            assert!(join(damaged).is_err(), "{name}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_memory() {
        let bomb = lz4(&vec![0; 200 << 20]);
        assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
        let honest = join(cut(&bomb, CHUNK_BYTES, 1, 200 << 20)).unwrap_err();
        assert!(honest.to_string().contains("longer than it says"), "{honest}");
        let lying = join(cut(&bomb, CHUNK_BYTES, 1, bomb.len() as u64)).unwrap_err();
        assert!(lying.to_string().contains(&format!("expected {}", bomb.len())), "{lying}");
    }

    #[test]
    fn more_data_than_announced_is_refused_at_once() {
        let mut endless = cut(&vec![7; 10 * CHUNK_BYTES], CHUNK_BYTES, 0, 100);
        endless.iter_mut().for_each(|chunk| chunk.count = u32::MAX);
        let mut joiner = Joiner::default();
        assert!(endless.into_iter().any(|chunk| joiner.push(chunk).is_err()));
        assert!(joiner.data.is_empty());
    }

    #[test]
    fn a_body_that_is_no_state_is_refused() {
        assert!(join(cut(b"\xff\xff\xff\xff", 4, 0, 4)).is_err());
        let other = v1::State { position: Some(Position { epoch: 9, revision: 9 }.into()), digest: vec![0; 16], ..Default::default() };
        let body = other.encode_to_vec();
        assert!(join(cut(&body, 100, 0, body.len() as u64)).is_err());
    }
}
