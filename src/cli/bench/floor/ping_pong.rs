//! The floor of a round trip: one question in flight, blocking on both sides, nothing between the program and the kernel.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Bound;
use crate::cli::bench::socket::Address;
use crate::cli::bench::statistics::Latency;

pub fn serve(Bound { tcp, unix, listening: _ }: Bound, question_bytes: usize, answer_bytes: usize) -> anyhow::Result<()> {
    let by_unix = std::thread::spawn(move || -> anyhow::Result<()> {
        for stream in unix.incoming() {
            answer(stream?, question_bytes, answer_bytes);
        }
        Ok(())
    });
    for stream in tcp.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        answer(stream, question_bytes, answer_bytes);
    }
    by_unix.join().map_err(|_| anyhow::anyhow!("the thread of the Unix socket panicked"))?
}

/// One connection at a time, until it is closed.
fn answer(mut stream: impl Read + Write, question_bytes: usize, answer_bytes: usize) {
    let (mut question, answer) = (vec![0; question_bytes], vec![0; answer_bytes]);
    while stream.read_exact(&mut question).and_then(|()| stream.write_all(&answer)).is_ok() {}
}

/// Round trips on this thread, and how many were measured.
pub fn ask(
    address: &Address,
    question_bytes: usize,
    answer_bytes: usize,
    warm_up: Duration,
    measured: Duration,
) -> anyhow::Result<(Latency, u64)> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            round_trips(stream, question_bytes, answer_bytes, warm_up, measured)
        }
        Address::Unix(path) => round_trips(UnixStream::connect(path)?, question_bytes, answer_bytes, warm_up, measured),
    }
}

fn round_trips(
    mut stream: impl Read + Write,
    question_bytes: usize,
    answer_bytes: usize,
    warm_up: Duration,
    measured: Duration,
) -> anyhow::Result<(Latency, u64)> {
    let (question, mut answer) = (vec![0; question_bytes], vec![0; answer_bytes]);
    let mut samples = Vec::new();
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        stream.write_all(&question)?;
        stream.read_exact(&mut answer)?;
        let since = started.elapsed();
        if since > warm_up + measured {
            let answers = samples.len() as u64;
            return Ok((Latency::of(samples).context("not one round trip was made")?, answers));
        }
        if since > warm_up {
            samples.push(asked.elapsed());
        }
    }
}
