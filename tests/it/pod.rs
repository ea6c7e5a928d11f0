//! A pod on real sockets, and a hand on its flags: what tests of the served APIs start from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use yardarm::clock::SystemClock;
use yardarm::flag::{Delta, Digest, Document, Item, ItemName, Kill, Position, Revision, State};
use yardarm::lifecycle::{Overdue, Shutdown};
use yardarm::replica::{Applied, Replica, Writer};
use yardarm::sidecar::{self, Flags, Running, Serve, StandIn, Workers};
use yardarm::wire::v1::evaluation_client::EvaluationClient;
use yardarm::wire::v1::{Context, Decision, EvaluateRequest, FlagSelector, WatchFlagsRequest};

pub const EPOCH: u64 = 0xabc;

/// Nothing here takes that long; a test that waits longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The flags that most tests ask for.
pub const FLAGS: &str = r#"
flags:
  new_checkout_flow:
    tags: [checkout, web]
    variants: { "on": true, "off": false }
    defaultVariant: "off"
    killVariant: "off"
    targets: [ { variant: "on", keys: [ana] } ]
    rules:
      - name: rollout
        split: { by: targetingKey, weights: { "on": 20, "off": 80 } }
  greeting:
    variants: { formal: Good day, short: Hi }
    defaultVariant: short
  limit:
    variants: { low: 10.5, high: 100 }
    defaultVariant: low
  sales_email:
    tags: [sales]
    variants:
      old: { prompt: sales-email-007, version: 2.2.1, temperature: 0.5, stop: [a, b], deep: { er: true } }
      new: { prompt: sales-email-007, version: 2.3.0 }
    defaultVariant: old
    rules:
      - name: beta
        when: [ { attribute: cohort, in: [internal, beta] } ]
        serve: new
  legacy_api:
    state: DISABLED
    variants: { "on": true, "off": false }
    defaultVariant: "on"
  needs_checkout:
    variants: { "on": true, "off": false }
    defaultVariant: "on"
    offVariant: "off"
    prerequisites: [ { flag: new_checkout_flow, variants: ["on"] } ]
"#;

pub struct Pod {
    pub running: Running,
    pub shutdown: Shutdown,
    hand: Hand,
    completed: tokio::task::JoinHandle<Vec<Overdue>>,
}

/// Changes the flags as a control plane would.
pub struct Hand {
    writer: Writer,
    items: BTreeMap<String, Item>,
    kills: BTreeMap<String, Kill>,
    position: Position,
}

impl Pod {
    pub async fn start(flags: &str) -> Self {
        Self::start_with(&Serve { threads: Some(2), ..Serve::default() }, flags).await
    }

    pub async fn start_with(args: &Serve, flags: &str) -> Self {
        let mut pod = Self::start_empty(args).await;
        pod.apply(flags);
        pod
    }

    /// Without any state.
    pub async fn start_empty(args: &Serve) -> Self {
        Self::start_on(&Workers::start(args.threads).unwrap(), args).await
    }

    /// On threads that are shared with others.
    pub async fn start_on(workers: &Workers, args: &Serve) -> Self {
        Self::serving(async |flags, shutdown| sidecar::serve(args, flags, workers, shutdown).await.unwrap()).await
    }

    /// With flagd's manners, and without any state.
    pub async fn in_place_of_flagd(args: &Serve) -> Self {
        let workers = Workers::start(args.threads).unwrap();
        let serve =
            async |flags, shutdown| sidecar::serve_in_place_of_flagd(args, flags, &workers, shutdown, StandIn::default()).await.unwrap();
        Self::serving(serve).await
    }

    async fn serving(serve: impl AsyncFnOnce(Flags, Shutdown) -> Running) -> Self {
        let (replica, writer) = Replica::new(Arc::new(SystemClock::new()));
        let shutdown = Shutdown::new();
        let flags = Flags { replica, environment: "test".into(), following: None };
        let running = serve(flags, shutdown.clone()).await;
        let completed = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.complete().await }
        });
        let hand = Hand { writer, items: BTreeMap::new(), kills: BTreeMap::new(), position: Position { epoch: EPOCH, revision: 0 } };
        Self { running, shutdown, hand, completed }
    }

    pub async fn client(&self) -> EvaluationClient<Channel> {
        EvaluationClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.running.tcp)).unwrap().connect().await.unwrap()
    }

    /// Begins the shutdown and waits for its end; answers with what was overdue.
    pub async fn stop(self) -> Vec<Overdue> {
        self.shutdown.request();
        tokio::time::timeout(DEADLINE, self.completed).await.expect("the shutdown is bounded").unwrap()
    }

    /// For a test that changes flags from another task.
    pub fn hand(&mut self) -> &mut Hand {
        &mut self.hand
    }

    pub fn into_parts(self) -> (Running, Shutdown, Hand) {
        (self.running, self.shutdown, self.hand)
    }

    pub fn apply(&mut self, flags: &str) -> Applied {
        self.hand.apply(flags)
    }

    pub fn kill(&mut self, key: &str) -> Applied {
        self.hand.toggle(key, true)
    }

    pub fn restore(&mut self, key: &str) -> Applied {
        self.hand.toggle(key, false)
    }

    pub fn delete(&mut self, key: &str) -> Applied {
        self.hand.delete(key)
    }
}

impl Hand {
    /// Adds or replaces the flags of a document, as one change.
    pub fn apply(&mut self, flags: &str) -> Applied {
        let document = Document::parse(flags).unwrap_or_else(|problems| panic!("{problems}"));
        let revision = self.position.revision + 1;
        let items = document.flags.iter().map(|(key, flag)| Item {
            name: ItemName::flag(key),
            revision,
            definition: flag.to_canonical_json().into(),
        });
        self.change(items.collect(), Vec::new(), Vec::new())
    }

    pub fn delete(&mut self, key: &str) -> Applied {
        self.change(Vec::new(), vec![ItemName::flag(key)], Vec::new())
    }

    pub fn toggle(&mut self, key: &str, killed: bool) -> Applied {
        let revision = self.position.revision + 1;
        self.change(Vec::new(), Vec::new(), vec![register(key, revision, killed)])
    }

    /// By the kill lane: ahead of the log, which does not move.
    pub fn announce_kill(&mut self, key: &str) -> Applied {
        self.writer.apply_kill(EPOCH, register(key, self.position.revision + 1, true)).expect("news")
    }

    /// The same state again, as after a reconnect.
    pub fn resync(&mut self) -> Applied {
        let state = State {
            position: self.position,
            items: self.items.values().cloned().collect(),
            kills: self.kills.values().cloned().collect(),
            digest: self.digest(),
            origin_time_us: 0,
        };
        self.writer.apply_snapshot(state).unwrap()
    }

    fn change(&mut self, upserts: Vec<Item>, removed: Vec<ItemName>, kills: Vec<Kill>) -> Applied {
        let prev_revision = self.position.revision;
        self.position.revision += 1;
        for item in &upserts {
            self.items.insert(item.name.key.clone(), item.clone());
        }
        for name in &removed {
            self.items.remove(&name.key);
            self.kills.remove(&name.key);
        }
        for kill in &kills {
            self.kills.insert(kill.flag_key.clone(), kill.clone());
        }
        if prev_revision == 0 {
            return self.resync();
        }
        let Position { epoch, revision } = self.position;
        let delta =
            Delta { epoch, prev_revision, revision, upserts, removed, kills, digest: self.digest(), origin_time_us: revision as i64 };
        self.writer.apply_delta(delta).unwrap()
    }

    fn digest(&self) -> Digest {
        Digest::of(self.items.values(), self.kills.values())
    }
}

fn register(key: &str, revision: Revision, killed: bool) -> Kill {
    Kill { flag_key: key.into(), revision, killed, actor: "ana".into(), reason: "a test".into(), at_us: 0 }
}

pub async fn unix_client(path: &Path) -> EvaluationClient<Channel> {
    EvaluationClient::new(unix_channel(path).await)
}

pub async fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://pod").connect_with_connector(connect).await.unwrap()
}

pub fn person(key: &str) -> Context {
    Context { targeting_key: key.into(), attributes: None }
}

pub fn question(flag_key: &str, context: Context) -> EvaluateRequest {
    EvaluateRequest { flag_key: flag_key.into(), context: Some(context), default_value: None, r#type: 0 }
}

pub async fn evaluate(client: &mut EvaluationClient<Channel>, request: EvaluateRequest) -> Decision {
    client.evaluate(request).await.unwrap().into_inner().decision.unwrap()
}

pub fn watch_keys(keys: &[&str]) -> WatchFlagsRequest {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    WatchFlagsRequest {
        selector: Some(FlagSelector { keys, ..FlagSelector::default() }),
        heartbeat_ms: 60_000,
        ..WatchFlagsRequest::default()
    }
}

/// Fails the test instead of hanging it.
pub async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.expect("it happens within the deadline")
}
