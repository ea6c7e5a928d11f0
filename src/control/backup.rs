//! The backup format: everything that a store holds, as one stream that says by itself whether it is whole.
//!
//! ```text
//! "yardarm-backup", 0, 1                              14 + 2 bytes; the last is the number of the format
//! length of the record, length of the key, key, value     4 + 2 bytes, big-endian; as often as there are entries
//! 0, number of records, SHA-256 of all that precedes it   4 + 8 + 32 bytes
//! ```
//! Keys and values are those of [`super::store`], which are the same for every store: a backup of one restores into another.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::store::Entry;

const MAGIC: &[u8] = b"yardarm-backup\0\x01";
const TRAILER_BYTES: usize = 4 + 8 + 32;
/// A longer record is none of ours: definitions and audit records are far below it.
const RECORD_BYTES: usize = 64 << 20;
/// The largest backup that is taken back; it is held in memory until it has proved to be whole.
pub const BACKUP_BYTES: usize = 1 << 30;

/// Turns entries into a stream.
pub struct Writer {
    hash: Sha256,
    records: u64,
    pending: BytesMut,
}

/// Turns a stream into entries, which are handed out only when the whole stream has proved to be what was written.
#[derive(Default)]
pub struct Reader {
    received: BytesMut,
}

impl Default for Writer {
    fn default() -> Self {
        Self { hash: Sha256::new(), records: 0, pending: BytesMut::from(MAGIC) }
    }
}

impl Writer {
    pub fn push(&mut self, Entry { key, value }: &Entry) {
        self.records += 1;
        // Keys are paths of a few hundred bytes, values far below 4 GiB.
        self.pending.put_u32((2 + key.len() + value.len()) as u32);
        self.pending.put_u16(key.len() as u16);
        self.pending.put_slice(key.as_bytes());
        self.pending.put_slice(value);
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What was pushed since the last time.
    pub fn take(&mut self) -> Bytes {
        let chunk = self.pending.split().freeze();
        self.hash.update(&chunk);
        chunk
    }

    /// The rest of the stream.
    pub fn finish(mut self) -> Bytes {
        self.pending.put_u32(0);
        self.pending.put_u64(self.records);
        let mut last = BytesMut::from(self.take());
        last.put_slice(&self.hash.finalize());
        last.freeze()
    }
}

impl Reader {
    /// # Errors
    /// What is wrong, as the end of a sentence.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), String> {
        if self.received.len() + chunk.len() > BACKUP_BYTES {
            return Err(format!("it is larger than {BACKUP_BYTES} bytes"));
        }
        self.received.put_slice(chunk);
        let begins = self.received.len().min(MAGIC.len());
        if self.received[..begins] != MAGIC[..begins] {
            return Err("it does not begin like a backup of this version of yardarm".to_owned());
        }
        Ok(())
    }

    /// The entries, in the order in which they were written.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence.
    pub fn finish(self) -> Result<Vec<Entry>, String> {
        let whole = self.received.freeze();
        let Some(body) = whole.len().checked_sub(TRAILER_BYTES).filter(|body| *body >= MAGIC.len()) else {
            return Err(format!("it ends after {} bytes", whole.len()));
        };
        let (hashed, expected) = whole.split_at(whole.len() - 32);
        if Sha256::digest(hashed).as_slice() != expected {
            return Err("its checksum does not fit: it was cut off or altered".to_owned());
        }
        let mut trailer = whole.slice(body + 4..);
        let records = trailer.get_u64();
        let entries = entries(whole.slice(MAGIC.len()..body + 4))?;
        if entries.len() as u64 != records {
            return Err(format!("it has {} records, expected {records}", entries.len()));
        }
        Ok(entries)
    }
}

fn entries(mut rest: Bytes) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    loop {
        let broken = || format!("record {} is broken", entries.len() + 1);
        let length = rest.try_get_u32().map_err(|_| broken())? as usize;
        if length == 0 {
            return if rest.is_empty() { Ok(entries) } else { Err("something follows its last record".to_owned()) };
        }
        if length > RECORD_BYTES || length > rest.len() {
            return Err(broken());
        }
        let mut record = rest.split_to(length);
        let key_length = usize::from(record.try_get_u16().map_err(|_| broken())?);
        if key_length > record.len() {
            return Err(broken());
        }
        let key = String::from_utf8(record.split_to(key_length).to_vec()).map_err(|_| broken())?;
        entries.push(Entry { key, value: record });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &'static [u8]) -> Entry {
        Entry { key: key.into(), value: Bytes::from_static(value) }
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut stream = Vec::new();
        for entry in entries {
            writer.push(entry);
            stream.extend(writer.take());
        }
        stream.extend(writer.finish());
        stream
    }

    fn read(stream: &[u8]) -> Result<Vec<Entry>, String> {
        let mut reader = Reader::default();
        stream.chunks(5).try_for_each(|chunk| reader.push(chunk))?;
        reader.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        for entries in [vec![], vec![entry("", b"")], vec![entry("a", b"1"), entry("b/c", b""), entry("d", &[0; 300])]] {
            assert_eq!(read(&written(&entries)).unwrap(), entries);
        }
    }

    #[test]
    fn a_torn_backup_is_refused_wherever_it_is_torn() {
        let stream = written(&[entry("a", b"1"), entry("b", b"2")]);
        for length in 0..stream.len() {
            assert!(read(&stream[..length]).is_err(), "{length} of {} bytes", stream.len());
        }
        assert!(read(&[stream.as_slice(), b"x"].concat()).is_err(), "a byte too much");
    }

    #[test]
    fn an_altered_byte_is_refused_wherever_it_is() {
        let stream = written(&[entry("a", b"1"), entry("b", b"2")]);
        for at in 0..stream.len() {
            let mut altered = stream.clone();
            altered[at] ^= 1;
            assert!(read(&altered).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_forged_checksum_does_not_make_nonsense_readable() {
        let forge = |body: &[u8]| [body, &Sha256::digest(body)].concat();
        let trailer = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        for record in [&[0, 0, 0, 1, 0][..], &[0, 0, 0, 3, 0, 9, b'a'], &[0, 0, 0, 3, 0, 1, 0xff], &[0xff; 8], &[0, 0, 0, 9, 0, 0]] {
            assert!(read(&forge(&[MAGIC, record, &trailer].concat())).is_err(), "{record:?}");
        }
        assert!(read(&forge(&[MAGIC, &trailer].concat())).is_err(), "one record was promised");
    }
}
