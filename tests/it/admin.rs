//! The Admin service as a client sees it, on the real server.

mod errors;
mod hostile;
mod service;

use std::path::Path;

use tempfile::TempDir;
use tonic::transport::Channel;
use yardarm::control::{self, DEFAULT_ENVIRONMENT, Running};
use yardarm::lifecycle::{Budgets, Shutdown};
use yardarm::wire::admin::MESSAGE_BYTES;
use yardarm::wire::v1::admin_client::AdminClient;
use yardarm::wire::v1::*;

use crate::process::channel;

type Client = AdminClient<Channel>;

struct Control {
    running: Running,
    shutdown: Shutdown,
    dir: TempDir,
}

impl Control {
    async fn start() -> Self {
        let (dir, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::with_budgets(Budgets::default()));
        let running = control::start(args(dir.path()), shutdown.clone()).await.unwrap();
        Self { running, shutdown, dir }
    }

    fn admin(&self) -> Client {
        let channel = channel(&self.running.grpc.to_string());
        AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES)
    }
}

fn args(data: &Path) -> control::Args {
    control::Args {
        listen: "127.0.0.1:0".parse().unwrap(),
        webhooks: control::hooks::Listen::default(),
        data: data.to_owned(),
        clock_ahead: None,
        ends_with_its_pods: false,
        log_changes: 100,
        log_days: 7,
        reflection: true,
        publish: control::publish::Args::default(),
    }
}

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "because".into(), expect_revision: None })
}

fn environment() -> String {
    DEFAULT_ENVIRONMENT.to_owned()
}

fn apply(document: &str) -> ApplyRequest {
    ApplyRequest { environment: environment(), document: document.as_bytes().to_vec(), dry_run: false, intent: intent() }
}

fn kill(key: &str) -> KillFlagRequest {
    KillFlagRequest { environment: environment(), key: key.into(), intent: intent() }
}

const DOCUMENT: &str = "
segments:
  beta: { included: [u1] }
flags:
  checkout:
    variants: { on: true, off: false }
    defaultVariant: off
    tags: [shop]
    rules: [ { when: [ { segment: beta } ], serve: on } ]
  cart: { variants: { on: true, off: false }, defaultVariant: on, prerequisites: [ { flag: checkout, variants: [on] } ] }
  search: { variants: { on: true, off: false }, defaultVariant: on, tags: [shop, fast] }
";
