//! The whole state of an environment, encoded and compressed once for everybody who needs it, in chunks that leave room for a kill between
//! them.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lz4_flex::frame::FrameEncoder;
use prost::Message as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;

use crate::control::Ledger;
use crate::flag::{Position, State};
use crate::wire::{frame, v1};

/// Half a stream window: at most one more chunk is on its way when the reader stops.
pub const CHUNK_BYTES: usize = 32 << 10;

/// A snapshot that is not older than this is good enough for who holds nothing newer, because the changes since are sent after it. While changes come quickly, a herd
/// of readers would else have each of them encoded anew.
const GOOD_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Snapshot {
    pub position: Position,
    /// `FollowResponse`s, in order. Everybody sends the same bytes.
    pub frames: Vec<Bytes>,
    made: Instant,
}

/// The newest snapshot of an environment, compressed and plain.
#[derive(Debug, Default)]
pub struct Snapshots {
    lz4: Mutex<Option<Arc<Snapshot>>>,
    plain: Mutex<Option<Arc<Snapshot>>>,
}

impl Snapshots {
    /// A snapshot at `least` or later. Whoever comes while one is being made waits for it. `None` when the environment is gone.
    pub async fn get(&self, ledger: &Arc<Ledger>, environment: &str, least: Position, lz4: bool) -> Result<Option<Arc<Snapshot>>, Status> {
        let Some(head) = ledger.head(environment).map(|head| head.borrow().position) else { return Ok(None) };
        let mut cached = if lz4 { self.lz4.lock().await } else { self.plain.lock().await };
        if let Some(snapshot) = cached.as_ref()
            && snapshot.position.epoch == least.epoch
            && snapshot.position.revision >= least.revision
            && (snapshot.position == head || snapshot.made.elapsed() < GOOD_FOR)
        {
            return Ok(Some(snapshot.clone()));
        }
        let (ledger, name) = (ledger.clone(), environment.to_owned());
        let made = tokio::task::spawn_blocking(move || ledger.state(&name).map(|state| encode(state, lz4))).await;
        let snapshot = made
            .map_err(|error| Status::internal(format!("the snapshot of `{environment}` could not be made: {error}")))?
            .map(|snapshot| snapshot.map(Arc::new))
            .transpose()?;
        *cached = snapshot.clone();
        Ok(snapshot)
    }
}

fn encode(state: State, lz4: bool) -> Result<Snapshot, Status> {
    let position = state.position;
    let body = v1::State::from(state).encode_to_vec();
    let state_bytes = body.len() as u64;
    let (data, encoding) = match lz4 {
        true => (compress(&body)?, v1::snapshot_chunk::Encoding::Lz4Frame),
        false => (body, v1::snapshot_chunk::Encoding::Plain),
    };
    let data = Bytes::from(data);
    let count = data.len().div_ceil(CHUNK_BYTES);
    let chunk = |index: usize| {
        let data = data.slice(index * CHUNK_BYTES..data.len().min((index + 1) * CHUNK_BYTES));
        let crc32 = crc32fast::hash(&data);
        let (index, count) = (index as u32, count as u32);
        v1::SnapshotChunk { position: Some(position.into()), index, count, data, crc32, encoding: encoding.into(), state_bytes }
    };
    let frames = (0..count).map(|index| frame::encode(&response(chunk(index)))).collect();
    Ok(Snapshot { position, frames, made: Instant::now() })
}

fn response(chunk: v1::SnapshotChunk) -> v1::FollowResponse {
    v1::FollowResponse { message: Some(v1::follow_response::Message::SnapshotChunk(chunk)) }
}

fn compress(body: &[u8]) -> Result<Vec<u8>, Status> {
    let failed = |error: &dyn std::fmt::Display| Status::internal(format!("the snapshot could not be compressed: {error}"));
    let mut encoder = FrameEncoder::new(Vec::with_capacity(body.len() / 4));
    encoder.write_all(body).map_err(|error| failed(&error))?;
    encoder.finish().map_err(|error| failed(&error))
}

impl Snapshot {
    /// The chunks as messages; their data is shared with the frames.
    pub fn chunks(&self) -> Result<Vec<v1::SnapshotChunk>, Status> {
        let chunk = |frame: &Bytes| match frame::decode::<v1::FollowResponse>(frame).ok()?.message? {
            v1::follow_response::Message::SnapshotChunk(chunk) => Some(chunk),
            _ => None,
        };
        let chunks: Option<Vec<_>> = self.frames.iter().map(chunk).collect();
        chunks.ok_or_else(|| Status::internal("a snapshot holds something else than chunks"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use lz4_flex::frame::FrameDecoder;

    use super::*;
    use crate::flag::{Digest, Item, ItemName};

    fn state() -> State {
        // Text that lz4 cannot shrink to less than a chunk.
        let definition = |number: u64| Bytes::from(format!("{{\"salt\":\"{:x}\"}}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let items: Vec<_> =
            (0..5000).map(|n| Item { name: ItemName::flag(format!("flag-{n}")), revision: n, definition: definition(n) }).collect();
        let digest = Digest::of(&items, []);
        State { position: Position { epoch: 1, revision: 5000 }, items, kills: Vec::new(), digest, origin_time_us: 0 }
    }

    #[test]
    fn chunks_are_small_and_join_to_the_state() {
        for lz4 in [true, false] {
            let chunks = encode(state(), lz4).unwrap().chunks().unwrap();
            assert!(chunks.len() > 2);
            let mut joined = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                assert_eq!((chunk.index as usize, chunk.count as usize), (index, chunks.len()));
                assert!(chunk.data.len() <= CHUNK_BYTES && chunk.crc32 == crc32fast::hash(&chunk.data));
                joined.extend_from_slice(&chunk.data);
            }
            let body = match lz4 {
                true => {
                    let mut body = Vec::new();
                    FrameDecoder::new(joined.as_slice()).read_to_end(&mut body).unwrap();
                    body
                }
                false => joined,
            };
            assert_eq!(body.len() as u64, chunks[0].state_bytes);
            assert_eq!(State::try_from(v1::State::decode(body.as_slice()).unwrap()), Ok(state()));
        }
    }

    #[test]
    fn an_empty_environment_is_a_snapshot_of_one_chunk() {
        assert_eq!(encode(State::default(), true).unwrap().frames.len(), 1);
    }
}
