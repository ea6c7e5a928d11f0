//! The client's half of HTTP/2, by hand: just enough to ask one question over and over.
//!
//! A general client costs as much as the server that it measures and then half of what is measured is the client. This one knows its
//! header block beforehand, compresses it as any client does (a literal that is indexed once, seven bytes from then on), and never
//! decodes the answer's headers: it looks at the status byte and hands out the data.

use std::ops::Range;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// SETTINGS_MAX_FRAME_SIZE that every server must take.
const FRAME_BYTES: usize = 16_384;
/// What both windows have before anybody says otherwise (RFC 9113, 6.9.2).
const DEFAULT_WINDOW: i64 = 65_535;
/// Our windows.
const WIDE_WINDOW: u32 = 1 << 30;
const STALLED_WINDOW: u32 = 1024;
/// `:status: 200` in the static table, the others that stand there, and a status that is spelt out.
const STATUS_200: u8 = 0x88;
const OTHER_STATUS: [u8; 7] = [0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e, 0x48];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// How much the server may send before we read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// 1 GiB: flow control never shows.
    Wide,
    /// 1 KiB a stream, and never given back: full after a few messages, as that of a client that stopped reading.
    Stalled,
}

/// What is asked, as the header block needs it.
#[derive(Debug, Clone)]
pub enum Question {
    /// `GET /`, nothing else.
    Hello,
    /// A gRPC call of this path (`/package.Service/Method`).
    Call(&'static str),
}

/// What the server said about a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Data {
        stream: u32,
        bytes: &'a [u8],
    },
    /// The server is done with the stream.
    End {
        stream: u32,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the server answered stream {stream} with another HTTP status than 200")]
    Status { stream: u32 },
    #[error("the server reset stream {stream} with code {code}")]
    Reset { stream: u32, code: u32 },
    #[error("the server closed the connection with code {code}: {message}")]
    GoAway { code: u32, message: String },
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

/// One connection without its socket: bytes to send gather in [`Connection::outbox`], bytes that came in go through
/// [`Connection::received`].
#[derive(Debug)]
pub struct Connection {
    pub outbox: Vec<u8>,
    inbox: Vec<u8>,
    first_block: Vec<u8>,
    later_block: Vec<u8>,
    next_stream: u32,
    /// What we may still send on the connection, and what a fresh stream may.
    send_window: i64,
    stream_window: i64,
    /// What we may still send on the one stream that is kept open for sending.
    open_stream: Option<(u32, i64)>,
    /// Bytes that came in since we last gave the server new room.
    unanswered: u32,
    window: Window,
}

impl Connection {
    pub fn new(question: &Question, window: Window) -> Self {
        let (first_block, later_block) = header_blocks(question);
        let mut connection = Self {
            outbox: Vec::with_capacity(4096),
            inbox: Vec::with_capacity(FRAME_BYTES),
            first_block,
            later_block,
            next_stream: 1,
            send_window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            open_stream: None,
            unanswered: 0,
            window,
        };
        connection.greet();
        connection
    }

    fn greet(&mut self) {
        self.outbox.extend_from_slice(PREFACE);
        let window = match self.window {
            Window::Wide => WIDE_WINDOW,
            Window::Stalled => STALLED_WINDOW,
        };
        let settings = [(SETTINGS_ENABLE_PUSH, 0), (SETTINGS_INITIAL_WINDOW_SIZE, window)];
        frame_header(&mut self.outbox, 6 * settings.len(), SETTINGS, 0, 0);
        for (name, value) in settings {
            self.outbox.extend_from_slice(&u16::to_be_bytes(name));
            self.outbox.extend_from_slice(&u32::to_be_bytes(value));
        }
        if self.window == Window::Wide {
            window_update(&mut self.outbox, 0, WIDE_WINDOW - DEFAULT_WINDOW as u32);
        }
    }

    /// Asks with this body and nothing more to say; `None` when the server's windows have no room for it now.
    pub fn ask(&mut self, body: &[u8]) -> Option<u32> {
        let size = body.len() as i64;
        if size > self.send_window || size > self.stream_window {
            return None;
        }
        let stream = self.open(body.is_empty());
        if !body.is_empty() {
            self.send_window -= size;
            data(&mut self.outbox, stream, body, true);
        }
        Some(stream)
    }

    /// Opens a stream to send on for as long as one likes. One at a time.
    pub fn open_for_sending(&mut self) -> u32 {
        let stream = self.open(false);
        self.open_stream = Some((stream, self.stream_window));
        stream
    }

    /// How many bytes [`Connection::send`] takes now.
    pub fn room(&self) -> usize {
        let room = self.open_stream.map_or(0, |(_, window)| window.min(self.send_window));
        usize::try_from(room).unwrap_or(0)
    }

    /// Sends on the open stream. The caller asked [`Connection::room`] first.
    pub fn send(&mut self, body: &[u8]) {
        let Some((stream, window)) = &mut self.open_stream else { return };
        *window -= body.len() as i64;
        self.send_window -= body.len() as i64;
        data(&mut self.outbox, *stream, body, false);
    }

    fn open(&mut self, and_done: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let block = if stream == 1 { &self.first_block } else { &self.later_block };
        frame_header(&mut self.outbox, block.len(), HEADERS, END_HEADERS | if and_done { END_STREAM } else { 0 }, stream);
        self.outbox.extend_from_slice(block);
        stream
    }

    /// # Errors
    /// On anything but answers: the connection is of no use afterwards.
    pub fn received(&mut self, bytes: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), Error> {
        if self.inbox.is_empty() {
            let used = self.frames(bytes, &mut on_event)?;
            self.inbox.extend_from_slice(&bytes[used..]);
        } else {
            let mut inbox = std::mem::take(&mut self.inbox);
            inbox.extend_from_slice(bytes);
            let used = self.frames(&inbox, &mut on_event)?;
            inbox.drain(..used);
            self.inbox = inbox;
        }
        Ok(())
    }

    /// Handles the whole frames at the front and says how many bytes they were.
    fn frames(&mut self, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<usize, Error> {
        let mut used = 0;
        while let Some(header) = bytes.get(used..used + HEADER_BYTES) {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let (kind, flags, stream) = (header[3], header[4], be_u32(&header[5..9]) & 0x7fff_ffff);
            let start = used + HEADER_BYTES;
            let Some(payload) = bytes.get(start..start + length) else { break };
            self.frame(kind, flags, stream, payload, on_event)?;
            used = start + length;
        }
        Ok(used)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Error> {
        match kind {
            DATA => {
                self.unanswered += payload.len() as u32;
                on_event(Event::Data { stream, bytes: &payload[unpadded(flags, payload)?] });
                self.make_room(stream);
            }
            HEADERS => {
                // Status comes first in an answer, and never in the trailers.
                let first = payload[unpadded(flags, payload)?].first().copied().unwrap_or(STATUS_200);
                if OTHER_STATUS.contains(&first) {
                    return Err(Error::Status { stream });
                }
            }
            RST_STREAM if payload.len() == 4 => {
                let code = be_u32(payload);
                // A server may say NO_ERROR after an answer that it gave before it had read the whole question.
                if code != 0 {
                    return Err(Error::Reset { stream, code });
                }
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            PING if flags & ACK == 0 && payload.len() == 8 => {
                frame_header(&mut self.outbox, 8, PING, ACK, 0);
                self.outbox.extend_from_slice(payload);
            }
            GOAWAY if payload.len() >= 8 => {
                let message = String::from_utf8_lossy(&payload[8..]).into_owned();
                return Err(Error::GoAway { code: be_u32(&payload[4..8]), message });
            }
            WINDOW_UPDATE if payload.len() == 4 => self.window_update(stream, i64::from(be_u32(payload) & 0x7fff_ffff)),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            on_event(Event::End { stream });
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            if u16::from_be_bytes([setting[0], setting[1]]) == SETTINGS_INITIAL_WINDOW_SIZE {
                let now = i64::from(be_u32(&setting[2..]));
                if let Some((_, window)) = &mut self.open_stream {
                    *window += now - self.stream_window;
                }
                self.stream_window = now;
            }
        }
        frame_header(&mut self.outbox, 0, SETTINGS, ACK, 0);
    }

    fn window_update(&mut self, stream: u32, by: i64) {
        match &mut self.open_stream {
            _ if stream == 0 => self.send_window += by,
            Some((open, window)) if *open == stream => *window += by,
            // A stream that said all it had to say.
            _ => {}
        }
    }

    /// Gives the room back when half of it is used. A stream that just ended ignores it.
    fn make_room(&mut self, stream: u32) {
        if self.window == Window::Wide && self.unanswered > WIDE_WINDOW / 2 {
            window_update(&mut self.outbox, 0, self.unanswered);
            window_update(&mut self.outbox, stream, self.unanswered);
            self.unanswered = 0;
        }
    }
}

/// The header block of the first question, which enters the names into the server's table, and of every later one.
fn header_blocks(question: &Question) -> (Vec<u8>, Vec<u8>) {
    // Static table: 2 `:method GET`, 3 `:method POST`, 4 `:path /`, 6 `:scheme http`, 1 `:authority`, 31 content-type, 58 user-agent.
    let mut first = match question {
        Question::Hello => vec![0x82, 0x86, 0x84],
        Question::Call(_) => vec![0x83, 0x86],
    };
    let mut later = first.clone();
    // Those with a colon come first.
    let mut indexed = vec![(Some(1), "", "localhost"), (Some(58), "", "yardarm-bench")];
    if let Question::Call(path) = question {
        indexed.insert(0, (Some(4), "", path));
        indexed.push((Some(31), "", "application/grpc"));
        indexed.push((None, "te", "trailers"));
    }
    for (name, new_name, value) in &indexed {
        // Literal with incremental indexing.
        first.push(0x40 | name.unwrap_or(0));
        if name.is_none() {
            string(&mut first, new_name);
        }
        string(&mut first, value);
    }
    // The newest entry is 62.
    later.extend((0..indexed.len() as u8).rev().map(|age| 0x80 | (62 + age)));
    (first, later)
}

/// A string of HPACK without Huffman coding; ours are shorter than 127 bytes.
fn string(block: &mut Vec<u8>, text: &str) {
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

fn frame_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn data(out: &mut Vec<u8>, stream: u32, body: &[u8], and_done: bool) {
    let mut parts = body.chunks(FRAME_BYTES).peekable();
    while let Some(part) = parts.next() {
        let last = and_done && parts.peek().is_none();
        frame_header(out, part.len(), DATA, if last { END_STREAM } else { 0 }, stream);
        out.extend_from_slice(part);
    }
}

fn window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    frame_header(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&by.to_be_bytes());
}

/// Where the content of a DATA or HEADERS frame lies. Servers here send no priorities.
fn unpadded(flags: u8, payload: &[u8]) -> Result<Range<usize>, Error> {
    if flags & PADDED == 0 {
        return Ok(0..payload.len());
    }
    let padding = usize::from(*payload.first().ok_or(Error::Protocol("a padded frame is empty"))?);
    if padding < payload.len() { Ok(1..payload.len() - padding) } else { Err(Error::Protocol("more padding than frame")) }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame_header(&mut bytes, payload.len(), kind, flags, stream);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn events(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<String>, Error> {
        let mut seen = Vec::new();
        connection.received(bytes, |event| seen.push(format!("{event:?}")))?;
        Ok(seen)
    }

    #[test]
    fn an_answer_cut_at_any_byte_is_read_the_same() {
        let mut answer = frame(HEADERS, END_HEADERS, 1, &[STATUS_200]);
        answer.extend(frame(DATA, 0, 1, b"hello"));
        answer.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x40]));
        let whole = events(&mut Connection::new(&Question::Hello, Window::Wide), &answer).unwrap();
        assert_eq!(whole.len(), 2, "{whole:?}");
        for cut in 1..answer.len() {
            let mut connection = Connection::new(&Question::Hello, Window::Wide);
            let mut parts = events(&mut connection, &answer[..cut]).unwrap();
            parts.extend(events(&mut connection, &answer[cut..]).unwrap());
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_question_waits_for_the_servers_window() {
        let mut connection = Connection::new(&Question::Call("/a.B/C"), Window::Wide);
        let body = vec![0; 40_000];
        assert_eq!(connection.ask(&body), Some(1));
        assert_eq!(connection.ask(&body), None, "25,535 bytes are left");
        connection.received(&frame(WINDOW_UPDATE, 0, 0, &40_000_u32.to_be_bytes()), |_| ()).unwrap();
        assert_eq!(connection.ask(&body), Some(3));
    }

    #[test]
    fn another_status_a_reset_and_a_goodbye_are_errors() {
        let connection = || Connection::new(&Question::Hello, Window::Wide);
        let not_found = frame(HEADERS, END_HEADERS, 1, &[0x8d]);
        assert!(matches!(events(&mut connection(), &not_found), Err(Error::Status { stream: 1 })));
        let reset = frame(RST_STREAM, 0, 1, &7_u32.to_be_bytes());
        assert!(matches!(events(&mut connection(), &reset), Err(Error::Reset { stream: 1, code: 7 })));
        let goodbye = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11, b'n', b'o']);
        assert!(matches!(events(&mut connection(), &goodbye), Err(Error::GoAway { code: 11, message }) if message == "no"));
    }
}
