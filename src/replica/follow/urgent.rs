//! The kill lane: a stream of its own, with its own reconnects.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::flag::Kill;
use crate::wire::v1;

use super::metrics::count;
use super::owner::FromLane;
use super::{Following, LOST_AFTER_HEARTBEATS};

/// Never returns before the sidecar leaves.
pub async fn run(following: Arc<Following>, kills: mpsc::Sender<FromLane>) {
    let mut backoff = Backoff::default();
    loop {
        let (generation, client) = following.link.client();
        let mut opened = None;
        let ended = tokio::select! {
            ended = listen(&following, client, &kills, &mut opened) => ended,
            () = following.leaving.cancelled() => return,
        };
        if ended == Ended::Silent {
            following.link.broken(generation);
        }
        backoff.held_for(opened.map_or_else(Default::default, |opened: Instant| opened.elapsed()));
        let wait = backoff.next(&mut rand::rng());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = following.leaving.cancelled() => return,
        }
    }
}

/// The stream of the log tells how the control plane is doing; here it matters only whether the connection is to be replaced.
#[derive(PartialEq, Eq)]
enum Ended {
    Silent,
    Closed,
}

async fn listen(
    following: &Following,
    mut client: super::link::Client,
    kills: &mpsc::Sender<FromLane>,
    opened: &mut Option<Instant>,
) -> Ended {
    let settings = &following.settings;
    let request = v1::UrgentRequest { environment: settings.environment.clone(), identity: Some(settings.identity.clone().into()) };
    let silence = || following.heartbeat() * LOST_AFTER_HEARTBEATS;
    let mut notices = match timeout(silence(), client.urgent(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(_)) => return Ended::Closed,
        Err(_) => return Ended::Silent,
    };
    *opened = Some(Instant::now());
    loop {
        let v1::KillNotice { epoch, kill, .. } = match timeout(silence(), notices.message()).await {
            Ok(Ok(Some(notice))) => notice,
            Ok(_) => return Ended::Closed,
            Err(_) => return Ended::Silent,
        };
        let Some(register) = kill else { continue };
        match Kill::try_from(register) {
            Ok(kill) => {
                if kills.send(FromLane { epoch, kill }).await.is_err() {
                    return Ended::Closed;
                }
            }
            Err(malformed) => {
                count(&following.metrics.refused);
                tracing::warn!(reason = %malformed, "a kill notice is refused; the log will bring what it meant");
            }
        }
    }
}
