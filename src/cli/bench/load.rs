//! A closed loop: so many connections, so many questions in flight on each, one thread. An answer that is not one ends the run.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

use super::http2::{Connection, Event, Question, Window};
use super::socket::{Address, Socket};
use super::statistics::Latency;

/// One answer of this many is decoded and looked at; all must be whole.
const CHECK_ONE_OF: u64 = 64;
const READ_BYTES: usize = 256 * 1024;

/// Says what is wrong with an answer.
pub type Check = fn(&[u8]) -> anyhow::Result<()>;

#[derive(Debug, Clone)]
pub struct Load {
    pub address: Address,
    pub question: Question,
    pub traffic: Traffic,
    pub connections: usize,
    pub in_flight: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

#[derive(Debug, Clone)]
pub enum Traffic {
    /// Requests without a body.
    Hello,
    /// gRPC calls with these messages in turn.
    Calls { messages: Rc<[Vec<u8>]>, check: Check },
    /// One gRPC stream a connection, with these messages in turn. `id` is put in front of each as field 1, and must be field 1 of its answer.
    Stream { messages: Rc<[Vec<u8>]>, check: Check },
}

#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub per_second: f64,
    pub latency: Latency,
    /// CPU time of the server for one answer.
    pub cpu_us: f64,
}

/// What the connections of a run share.
#[derive(Debug, Default)]
struct Tally {
    answers: Cell<u64>,
    measuring: Cell<bool>,
    samples: RefCell<Vec<Duration>>,
}

impl Tally {
    fn add(&self, latency: Duration) {
        self.answers.set(self.answers.get() + 1);
        if self.measuring.get() {
            self.samples.borrow_mut().push(latency);
        }
    }

    fn is_to_be_checked(&self) -> bool {
        self.answers.get().is_multiple_of(CHECK_ONE_OF)
    }
}

impl Load {
    /// Runs on this thread.
    ///
    /// # Errors
    /// When a connection fails, an answer is wrong, or none comes.
    pub fn run(&self, server_cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, self.drive(server_cpu))
    }

    async fn drive(&self, server_cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Outcome> {
        let tally = Rc::new(Tally::default());
        let mut clients = JoinSet::new();
        for _ in 0..self.connections {
            let socket = Socket::connect(&self.address).await.with_context(|| format!("cannot connect to {:?}", self.address))?;
            let connection = Connection::new(&self.question, Window::Wide);
            let (tally, in_flight) = (Rc::clone(&tally), self.in_flight);
            match self.traffic.clone() {
                Traffic::Hello => {
                    let nothing: Rc<[Vec<u8>]> = [Vec::new()].into();
                    clients.spawn_local(calls(socket, connection, nothing, None, in_flight, tally))
                }
                Traffic::Calls { messages, check } => {
                    let bodies = messages.iter().map(|message| framed(message)).collect();
                    clients.spawn_local(calls(socket, connection, bodies, Some(check), in_flight, tally))
                }
                Traffic::Stream { messages, check } => clients.spawn_local(stream(socket, connection, messages, check, in_flight, tally)),
            };
        }
        unless_one_fails(&mut clients, self.warm_up).await?;
        let (answers, cpu, started) = (tally.answers.get(), server_cpu()?, Instant::now());
        tally.measuring.set(true);
        unless_one_fails(&mut clients, self.measured).await?;
        tally.measuring.set(false);
        let (answers, cpu, elapsed) = (tally.answers.get() - answers, server_cpu()?.saturating_sub(cpu), started.elapsed());
        let latency = Latency::of(tally.samples.take()).with_context(|| format!("no answer within {} ms", elapsed.as_millis()))?;
        Ok(Outcome { per_second: answers as f64 / elapsed.as_secs_f64(), latency, cpu_us: cpu.as_secs_f64() * 1e6 / answers as f64 })
    }
}

/// Lets the clients work for a while; they only ever end by failing.
async fn unless_one_fails(clients: &mut JoinSet<anyhow::Result<()>>, work_for: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(work_for) => Ok(()),
        Some(ended) = clients.join_next() => ended?.and_then(|()| bail!("the server closed a connection")),
    }
}

#[derive(Debug)]
struct Asked {
    stream: u32,
    at: Instant,
    answer: Vec<u8>,
}

async fn calls(
    socket: Socket,
    mut connection: Connection,
    bodies: Rc<[Vec<u8>]>,
    check: Option<Check>,
    in_flight: usize,
    tally: Rc<Tally>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    // In the order of asking, which is nearly always the order of answering: the front is looked at first.
    let mut asked: VecDeque<Asked> = VecDeque::with_capacity(in_flight);
    let mut spare: Vec<Vec<u8>> = Vec::new();
    let mut bodies = bodies.iter().cycle();
    loop {
        let now = Instant::now();
        while asked.len() < in_flight {
            let body = bodies.next().context("there is nothing to ask")?;
            let Some(stream) = connection.ask(body) else { break };
            asked.push_back(Asked { stream, at: now, answer: spare.pop().unwrap_or_default() });
        }
        let read = socket.exchange(&mut connection.outbox, &mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut wrong = None;
        connection.received(&buffer[..read], |event| match event {
            Event::Data { stream, bytes } => {
                if let Some(one) = asked.iter_mut().find(|one| one.stream == stream) {
                    one.answer.extend_from_slice(bytes);
                }
            }
            Event::End { stream } => {
                let Some(mut one) = asked.iter().position(|one| one.stream == stream).and_then(|at| asked.remove(at)) else { return };
                if let Some(check) = check
                    && let Err(error) = check_unary(&one.answer, check, tally.is_to_be_checked())
                {
                    wrong = Some(error);
                }
                tally.add(now - one.at);
                one.answer.clear();
                spare.push(one.answer);
            }
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
    }
}

/// Every answer must be one whole message: gRPC tells an error in the trailers of an answer with status 200.
fn check_unary(answer: &[u8], check: Check, look_inside: bool) -> anyhow::Result<()> {
    match unframed(answer) {
        Some((message, [])) if look_inside => check(message),
        Some((_, [])) => Ok(()),
        _ => bail!("an answer has {} bytes of body and is not one gRPC message: the call failed", answer.len()),
    }
}

async fn stream(
    socket: Socket,
    mut connection: Connection,
    messages: Rc<[Vec<u8>]>,
    check: Check,
    in_flight: usize,
    tally: Rc<Tally>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut messages = messages.iter().cycle();
    let mut asked_at = vec![Instant::now(); in_flight];
    let mut free: Vec<usize> = (0..in_flight).collect();
    let mut inbox: Vec<u8> = Vec::new();
    let mut questions = Vec::new();
    connection.open_for_sending();
    loop {
        let now = Instant::now();
        let room = connection.room();
        while let Some(slot) = free.pop() {
            let before = questions.len();
            numbered(&mut questions, slot as u64 + 1, messages.next().context("there is nothing to ask")?);
            if questions.len() > room {
                questions.truncate(before);
                free.push(slot);
                break;
            }
            asked_at[slot] = now;
        }
        connection.send(&questions);
        questions.clear();
        let read = socket.exchange(&mut connection.outbox, &mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mut over = false;
        connection.received(&buffer[..read], |event| match event {
            Event::Data { bytes, .. } => inbox.extend_from_slice(bytes),
            Event::End { .. } => over = true,
        })?;
        if over {
            bail!("the server ended the stream");
        }
        let now = Instant::now();
        let mut rest = inbox.as_slice();
        while let Some((answer, after)) = unframed(rest) {
            let slot = id_of(answer).and_then(|id| usize::try_from(id).ok()?.checked_sub(1)).filter(|slot| *slot < in_flight);
            let slot = slot.context("an answer has an id that was not asked")?;
            if tally.is_to_be_checked() {
                check(answer)?;
            }
            tally.add(now - asked_at[slot]);
            free.push(slot);
            rest = after;
        }
        let used = inbox.len() - rest.len();
        inbox.drain(..used);
    }
}

/// A message as gRPC sends it: not compressed, its length, itself.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// The first message and what follows it; `None` when it is not whole, or compressed.
pub fn unframed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0, a, b, c, d, rest @ ..] = bytes else { return None };
    rest.split_at_checked(u32::from_be_bytes([*a, *b, *c, *d]) as usize)
}

/// Appends the gRPC frame of `id` as field 1 and then `message`.
pub fn numbered(out: &mut Vec<u8>, id: u64, message: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 5]);
    out.push(0x08);
    prost::encoding::encode_varint(id, out);
    out.extend_from_slice(message);
    let length = (out.len() - start - 5) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

/// Field 1, which comes first.
fn id_of(mut message: &[u8]) -> Option<u64> {
    let 0x08 = *message.split_off_first()? else { return None };
    prost::encoding::decode_varint(&mut message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::floor;
    use crate::cli::bench::questions::Method;

    #[test]
    fn a_numbered_message_is_a_frame_with_its_id_in_front() {
        let mut frames = Vec::new();
        numbered(&mut frames, 300, b"\x12\x00");
        numbered(&mut frames, 7, b"");
        let (first, rest) = unframed(&frames).unwrap();
        assert_eq!((id_of(first), &first[first.len() - 2..]), (Some(300), b"\x12\x00".as_slice()));
        assert_eq!(unframed(rest).map(|(message, rest)| (id_of(message), rest.len())), Some((Some(7), 0)));
    }

    #[test]
    fn half_a_message_two_messages_and_none_are_no_answer() {
        let whole = framed(b"answer");
        let twice = [whole.as_slice(), &whole].concat();
        for wrong in [&whole[..whole.len() - 1], &twice, b""] {
            assert!(check_unary(wrong, |_| Ok(()), false).is_err(), "{wrong:?}");
        }
        assert!(check_unary(&whole, |_| bail!("looked"), true).is_err());
        assert!(check_unary(&whole, |_| bail!("looked"), false).is_ok());
    }

    /// The echo ends with the process of the test.
    fn echo() -> Address {
        let dir = tempfile::tempdir().unwrap();
        let bound = floor::Bound::at(dir.path().join("echo.sock")).unwrap();
        let [tcp, _] = bound.listening.addresses();
        std::thread::spawn(move || floor::echo::serve(bound));
        tcp
    }

    #[test]
    fn every_kind_of_traffic_gets_answers_from_a_server_that_is_not_ours() {
        let address = echo();
        for method in Method::ALL {
            let load = Load {
                address: address.clone(),
                question: method.question(),
                traffic: method.traffic(100),
                connections: 3,
                in_flight: 20,
                warm_up: Duration::from_millis(5),
                measured: Duration::from_millis(30),
            };
            let outcome = load.run(|| Ok(Duration::ZERO)).unwrap();
            assert!(outcome.per_second > 0.0, "{method:?}: {outcome:?}");
        }
    }

    #[test]
    fn a_call_that_fails_ends_the_run() {
        let question = Question::Call("/yardarm.v1.Evaluation/Nothing");
        let Traffic::Calls { messages, check } = Method::Unary.traffic(1) else { panic!("unary is calls") };
        let traffic = Traffic::Calls { messages, check };
        let (warm_up, measured) = (Duration::from_millis(5), Duration::from_secs(5));
        let load = Load { address: echo(), question, traffic, connections: 1, in_flight: 1, warm_up, measured };
        let error = load.run(|| Ok(Duration::ZERO)).unwrap_err();
        assert!(error.to_string().contains("the call failed"), "{error}");
    }
}
