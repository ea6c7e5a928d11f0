//! A network that can be cut, stalled and mended, connection by connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::within;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Connections stand, and nothing gets through.
    Stalled,
    /// Nobody is let in.
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct Weather {
    mode: Mode,
    /// Connections of earlier generations are gone.
    generation: u64,
    target: SocketAddr,
}

pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Open connections by generation.
    open: Arc<watch::Sender<BTreeMap<u64, usize>>>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather { mode: Mode::Pass, generation: 0, target });
        let open = Arc::new(watch::Sender::default());
        tokio::spawn(accept(listener, weather.subscribe(), open.clone()));
        Self { address, weather, open }
    }

    /// Breaks every connection; new ones get through. Nothing passes through the old ones when this returns.
    pub async fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
        self.old_ones_are_gone().await;
    }

    /// Breaks every connection, and refuses new ones.
    pub async fn close(&self) {
        self.weather.send_modify(|weather| (weather.generation, weather.mode) = (weather.generation + 1, Mode::Refused));
        self.old_ones_are_gone().await;
    }

    async fn old_ones_are_gone(&self) {
        let now = self.weather.borrow().generation;
        let mut open = self.open.subscribe();
        within("connections end", open.wait_for(|open| open.range(..now).all(|(_, count)| *count == 0))).await.unwrap();
    }

    /// A black hole: connections stand, new ones are accepted, and no byte gets through.
    pub fn stall(&self) {
        self.weather.send_modify(|weather| weather.mode = Mode::Stalled);
    }

    pub fn mend(&self) {
        self.weather.send_modify(|weather| weather.mode = Mode::Pass);
    }

    /// Where new connections go.
    pub fn lead_to(&self, target: SocketAddr) {
        self.weather.send_modify(|weather| weather.target = target);
    }
}

/// One connection, for as long as it is open.
struct Open {
    generation: u64,
    open: Arc<watch::Sender<BTreeMap<u64, usize>>>,
}

impl Open {
    fn new(generation: u64, open: Arc<watch::Sender<BTreeMap<u64, usize>>>) -> Self {
        open.send_modify(|open| *open.entry(generation).or_default() += 1);
        Self { generation, open }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open.entry(self.generation).or_default() -= 1);
    }
}

async fn accept(listener: TcpListener, weather: watch::Receiver<Weather>, open: Arc<watch::Sender<BTreeMap<u64, usize>>>) {
    while let Ok((near, _)) = listener.accept().await {
        let now = *weather.borrow();
        if now.mode == Mode::Refused {
            continue;
        }
        let (weather, open) = (weather.clone(), Open::new(now.generation, open.clone()));
        tokio::spawn(async move {
            let _open = open;
            let Ok(far) = TcpStream::connect(now.target).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let mut over = weather.clone();
            tokio::select! {
                biased;
                _ = over.wait_for(|later| later.generation != now.generation) => {}
                () = carry(near_in, far_out, weather.clone()) => {}
                () = carry(far_in, near_out, weather) => {}
            }
        });
    }
}

/// Ends when either side does, which ends the connection.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        if weather.wait_for(|weather| weather.mode != Mode::Stalled).await.is_err() {
            return;
        }
        let read = match from.read(&mut buffer).await {
            Ok(read) if read > 0 => read,
            _ => return,
        };
        if weather.wait_for(|weather| weather.mode != Mode::Stalled).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
