//! flagd's sync service (flagd.md 1.3): a document of all flags in one message, written once for everybody who gets it.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::Malformed;
use super::answer::{put_key, put_varint, varint_len, write_message};
use super::reader::{Key, Reader, delimited};
use super::value::{put_delimited, struct_message};

const PROVIDER_ID: Key = delimited(1);
const SELECTOR: Key = delimited(2);

/// A `SyncFlagsRequest`, or a `FetchAllFlagsRequest`, which has the same fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    pub provider_id: &'a str,
    /// A header goes before it.
    pub selector: &'a str,
}

impl<'a> Request<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut request = Self::default();
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                PROVIDER_ID => request.provider_id = reader.text()?,
                SELECTOR => request.selector = reader.text()?,
                _ => reader.skip(key, 2)?,
            }
        }
        Ok(request)
    }
}

/// A document as the two answers that carry it.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// A `SyncFlagsResponse` with its frame.
    frame: Bytes,
    /// Where in it the document lies.
    document: std::ops::Range<usize>,
    fetched: OnceLock<Bytes>,
}

impl Configuration {
    /// `write` writes a document of exactly `len` bytes. The context is always there, if empty: some providers tell its absence apart
    /// (flagd.md 1.11).
    pub fn new(len: usize, context: &Map<String, Json>, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let context = struct_message(context);
        let content_len = field_len(len) + field_len(context.len());
        let (mut frame, mut start) = (Vec::new(), 0);
        write_message(&mut frame, content_len, |out| {
            put_key(out, 1, 2);
            put_varint(out, len as u64);
            start = out.len();
            write(out);
            put_delimited(out, 2, &context);
        });
        Self { frame: frame.into(), document: start..start + len, fetched: OnceLock::new() }
    }

    pub fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    pub fn document(&self) -> &[u8] {
        self.frame.get(self.document.clone()).unwrap_or_default()
    }

    /// A `FetchAllFlagsResponse` with its frame, once for all that ask.
    pub fn fetched(&self) -> Bytes {
        let fetched = self.fetched.get_or_init(|| {
            let mut frame = Vec::new();
            write_message(&mut frame, field_len(self.document.len()), |out| put_delimited(out, 1, self.document()));
            frame.into()
        });
        fetched.clone()
    }
}

/// A `GetMetadataResponse` with its frame. The field is always there: Python's provider never becomes ready without (flagd.md 1.11).
pub fn metadata(fields: &Map<String, Json>) -> Bytes {
    let fields = struct_message(fields);
    let mut frame = Vec::new();
    write_message(&mut frame, field_len(fields.len()), |out| put_delimited(out, 2, &fields));
    frame.into()
}

/// Of a field whose number is below 16.
fn field_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::wire::flagd::sync;

    fn decoded<M: prost::Message + Default>(frame: &[u8]) -> M {
        assert_eq!(frame[0], 0);
        assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
        M::decode(&frame[5..]).unwrap()
    }

    #[test]
    fn a_document_comes_as_both_answers_and_its_context_is_there_even_if_empty() {
        for (context, attributes) in [(json!({}), 0), (json!({ "region": "eu" }), 1)] {
            for len in [0, 1, 127, 128, 70_000] {
                let document = "x".repeat(len);
                let configuration = Configuration::new(len, context.as_object().unwrap(), |out| out.extend(document.as_bytes()));
                let synced: sync::SyncFlagsResponse = decoded(&configuration.frame());
                assert_eq!(synced.flag_configuration, document);
                assert_eq!(synced.sync_context.unwrap().fields.len(), attributes);
                let fetched: sync::FetchAllFlagsResponse = decoded(&configuration.fetched());
                assert_eq!(fetched.flag_configuration, document);
            }
        }
    }

    #[test]
    fn metadata_are_there_even_if_empty() {
        let said: sync::GetMetadataResponse = decoded(&metadata(&Map::new()));
        assert_eq!(said.metadata.unwrap().fields.len(), 0);
    }

    #[test]
    fn a_request_is_read_in_place() {
        let message = sync::SyncFlagsRequest { provider_id: "pod-1".into(), selector: "source=a".into() }.encode_to_vec();
        assert_eq!(Request::read(&message), Ok(Request { provider_id: "pod-1", selector: "source=a" }));
        assert_eq!(Request::read(&[]), Ok(Request::default()));
        assert!(Request::read(&[10, 5, b'x']).is_err());
    }
}
