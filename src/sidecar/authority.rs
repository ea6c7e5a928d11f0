//! `:authority` over Unix sockets. gRPC's C core and grpc-java send the path of the socket, which is no authority by RFC 3986; gRPC's own
//! servers take any text, h2 refuses the request as malformed (hyperium/h2 #487).
//!
//! A text that is no authority is written over before h2 sees it, with as many bytes: the sizes of both ends' compression tables, which
//! count the lengths of what is in them, stay equal (RFC 7541, 4.1). Nobody here asks for the authority of a request. A connection whose
//! first request has a good one is not looked at further: it costs its reader one copy of its first bytes.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sniff::PREFACE;

/// Written in its place.
const STAND_IN: u8 = b'x';

/// Read at once while requests are looked at.
const CHUNK_BYTES: usize = 4096;

const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a peer may send before it is told of more (RFC 9113, 6.5.2); h2 is not told to allow more.
const MAX_FRAME_BYTES: usize = 16_384;

/// A connection whose requests get an authority.
#[derive(Debug)]
pub(super) struct Named<I> {
    io: I,
    watch: Watch,
    /// Read, and not handed on.
    held: BytesMut,
    /// Of `held`, what may be.
    passed: usize,
}

impl<I> Named<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, watch: Watch::Preface, held: BytesMut::new(), passed: 0 }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Named<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, watch, held, passed } = self.get_mut();
        while *passed == 0 {
            if *watch == Watch::Over && held.is_empty() {
                return Pin::new(io).poll_read(cx, buf);
            }
            let mut chunk = [0; CHUNK_BYTES];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The end: what is half of something is for h2 to judge.
                *watch = Watch::Over;
                *passed = held.len();
                if held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                held.extend_from_slice(chunk.filled());
                *passed = watch.pass(held);
            }
        }
        let now = (*passed).min(buf.remaining());
        buf.put_slice(&held[..now]);
        held.advance(now);
        *passed -= now;
        if held.is_empty() && *watch == Watch::Over {
            *held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Named<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Where a connection is, at the first byte that was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    Preface,
    /// So many bytes before the next frame. `replaced`: an authority was, and may come again.
    Frames {
        left: usize,
        replaced: bool,
    },
    /// Nothing is looked at any more.
    Over,
}

impl Watch {
    /// How many bytes from the front may go on; the rest is not whole yet.
    fn pass(&mut self, held: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = &mut held[at..];
            match self {
                Self::Over => return held.len(),
                Self::Preface if rest.len() < PREFACE.len() && PREFACE.starts_with(rest) => return at,
                Self::Preface if rest.starts_with(PREFACE) => {
                    at += PREFACE.len();
                    *self = Self::Frames { left: 0, replaced: false };
                }
                // HTTP/1.1.
                Self::Preface => *self = Self::Over,
                Self::Frames { left: 0, replaced } => {
                    let Some(([high, middle, low, kind, flags, ..], _)) = rest.split_first_chunk::<FRAME_HEAD>() else { return at };
                    let (kind, flags, length) = (*kind, *flags, u32::from_be_bytes([0, *high, *middle, *low]) as usize);
                    if kind != HEADERS || length > MAX_FRAME_BYTES {
                        at += FRAME_HEAD;
                        *self = Self::Frames { left: length, replaced: *replaced };
                        continue;
                    }
                    let Some(payload) = rest[FRAME_HEAD..].get_mut(..length) else { return at };
                    at += FRAME_HEAD + length;
                    *replaced |= replace_authority(payload, flags);
                    if !*replaced {
                        *self = Self::Over;
                    }
                }
                Self::Frames { .. } if rest.is_empty() => return at,
                Self::Frames { left, .. } => {
                    let now = (*left).min(rest.len());
                    at += now;
                    *left -= now;
                }
            }
        }
    }
}

/// Whether the payload of a HEADERS frame (RFC 9113, 6.2) had an authority that is none. One that stands in Huffman's code, as grpc-swift
/// sends it, or in a further frame is left as it is: its length in that code would change with its letters.
fn replace_authority(payload: &mut [u8], flags: u8) -> bool {
    let (mut start, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        let padding = payload.first().copied().unwrap_or_default();
        (start, end) = (1, end.saturating_sub(padding.into()));
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let Some(block) = payload.get_mut(start..end) else { return false };
    let Some(place) = authority(block).filter(|place| Authority::try_from(&block[place.clone()]).is_err()) else { return false };
    block[place].fill(STAND_IN);
    true
}

/// Where the text of `:authority` is in a block of fields (RFC 7541, 6), if it stands there letter for letter.
fn authority(block: &[u8]) -> Option<Range<usize>> {
    /// In the static table.
    const AUTHORITY: usize = 1;
    let mut fields = Fields { block, at: 0 };
    loop {
        let first = *block.get(fields.at)?;
        let (prefix, has_text) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            // The table changes its size.
            0x20..0x40 => (5, false),
            0x00..0x20 => (4, true),
        };
        let name = fields.integer(prefix)?;
        if !has_text {
            continue;
        }
        let is_wanted = match name {
            0 => fields.text()?.is_some_and(|name| &block[name] == b":authority"),
            index => index == AUTHORITY,
        };
        let value = fields.text()?;
        if is_wanted {
            return value;
        }
    }
}

struct Fields<'b> {
    block: &'b [u8],
    at: usize,
}

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.block.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// RFC 7541, 5.1; of at most 28 bits beyond its prefix, which is more than any frame has bytes.
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let most = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(self.byte()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// RFC 7541, 5.2. `Some(None)`: it is there in Huffman's code.
    fn text(&mut self) -> Option<Option<Range<usize>>> {
        let is_coded = *self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let text = self.at..self.at.checked_add(length).filter(|end| *end <= self.block.len())?;
        self.at = text.end;
        Some((!is_coded).then_some(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `name` is the representation's first byte.
    fn field(name: u8, value: &[u8]) -> Vec<u8> {
        [&[name, u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// POST, http, a table of another size, a path, then what is asked for.
    fn block(authority: &[u8]) -> Vec<u8> {
        [&[0x83, 0x86, 0x3f, 0xe1, 0x1f][..], &field(0x44, b"/a"), authority, &[0x40, 1, b't', 0x81, 0xff]].concat()
    }

    fn connection(blocks: &[Vec<u8>]) -> Vec<u8> {
        let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
        let requests = blocks.iter().flat_map(|block| [frame(HEADERS, 4, block), frame(0, 1, b"\x41\x01/")]).flatten();
        [&PREFACE[..], &settings].concat().into_iter().chain(requests).collect()
    }

    async fn passed(sent: &[u8], piece: usize) -> Vec<u8> {
        let (near, mut far) = duplex(64);
        let sent = sent.to_vec();
        tokio::spawn(async move {
            for piece in sent.chunks(piece) {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut all = Vec::new();
        Named::new(near).read_to_end(&mut all).await.unwrap();
        all
    }

    /// In whatever pieces it comes.
    async fn becomes(sent: Vec<u8>, expected: Vec<u8>) {
        for piece in [1, 2, 7, 30, 1000] {
            assert_eq!(passed(&sent, piece).await, expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn a_path_is_written_over_and_every_length_stays() {
        for path in [&b"/tmp/y.sock"[..], b"tmp%2Fy.sock", b"/"] {
            let stand_in = vec![STAND_IN; path.len()];
            for name in [0x41, 0x01, 0x11] {
                let again = block(&[0xbe]);
                let sent = [block(&field(name, path)), again.clone(), block(&field(name, path))];
                let expected = [block(&field(name, &stand_in)), again, block(&field(name, &stand_in))];
                becomes(connection(&sent), connection(&expected)).await;
            }
            let spelled = |value: &[u8]| block(&[&field(0x40, b":authority")[..], &field(0, value)[1..]].concat());
            becomes(connection(&[spelled(path)]), connection(&[spelled(&stand_in)])).await;
        }
    }

    proptest! {
        /// h2 has the last word on what is broken; here nothing is lost of it, and nothing panics.
        #[test]
        fn nothing_is_lost_or_longer_whatever_comes(frames in prop::collection::vec((0..3_u8, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
                                                   cut in 0..200_usize, piece in 1..50_usize) {
            let sent = frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload));
            let mut sent: Vec<u8> = PREFACE.iter().copied().chain(sent).collect();
            sent.truncate(cut.max(PREFACE.len()));
            let (mut watch, mut held, mut all) = (Watch::Preface, Vec::new(), Vec::new());
            for piece in sent.chunks(piece) {
                held.extend_from_slice(piece);
                let passed = watch.pass(&mut held);
                all.extend(held.drain(..passed));
            }
            all.extend(held);
            prop_assert_eq!(all.len(), sent.len());
            let changed: Vec<_> = all.iter().zip(&sent).filter(|(now, before)| now != before).map(|(now, _)| *now).collect();
            prop_assert!(changed.iter().all(|now| *now == STAND_IN), "{:?}", changed);
        }
    }

    #[tokio::test]
    async fn padding_and_priority_are_passed_by() {
        let padded = |block: &[u8]| [&[3, 0, 0, 0, 0, 16][..], block, &[0; 3]].concat();
        let sent = |path: &[u8]| [&PREFACE[..], &frame(HEADERS, PADDED | PRIORITY | 4, &padded(&block(&field(0x41, path))))].concat();
        becomes(sent(b"/run/y"), sent(b"xxxxxx")).await;
    }

    #[tokio::test]
    async fn whatever_else_there_is_passes_as_it_came() {
        let coded = block(&[0x41, 0x82, 0x61, 0xff]);
        let good = connection(&[block(&field(0x41, b"localhost:80")), block(&field(0x41, b"/not/looked/at"))]);
        let broken = [
            b"GET / HTTP/1.1\r\nHost: /a\r\n\r\n".to_vec(),
            PREFACE[..9].to_vec(),
            connection(&[coded]),
            connection(&[block(&[])]),
            good,
            [&PREFACE[..], &frame(HEADERS, PADDED, &[200, 0x41, 1, b'/'])].concat(),
            [&PREFACE[..], &frame(HEADERS, PADDED | PRIORITY, &[])].concat(),
            [&PREFACE[..], &frame(HEADERS, 4, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff])].concat(),
            [&PREFACE[..], &frame(HEADERS, 4, &[0x41, 9, b'/'])].concat(),
            [&PREFACE[..], &frame(HEADERS, 4, &field(0x41, b"/a"))[..11]].concat(),
        ];
        for sent in broken {
            becomes(sent.clone(), sent).await;
        }
    }
}
