//! Trips of this pod: while the control plane is out of reach its guards decide here, and when it is back it hears of what they did.
//!
//! A trip is told until the pod holds the kill that comes of it, or something newer, or until the control plane says that it is obsolete.
//! Telling it twice is harmless, as a kill is idempotent.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, timeout};

use crate::lifecycle::{Phase, Shutdown};
use crate::replica::follow::Uplink;
use crate::wire::replication::Identity;
use crate::wire::trip::Trip;
use crate::wire::v1;
use crate::wire::v1::evidence_client::EvidenceClient;
use crate::wire::v1::report_trip_response::Outcome;

use super::collector::Evidence;

const EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Looks at the guards each second and tells of their trips, until replication ends.
pub(in crate::sidecar) async fn guard(evidence: Evidence, uplink: Uplink, environment: String, identity: Identity, shutdown: Shutdown) {
    // Apart, so that a control plane that does not answer holds up no guard.
    tokio::select! {
        () = watch(&evidence, &uplink) => {}
        () = Teller { uplink: &uplink, environment, identity, is_failing: false }.run() => {}
        () = shutdown.begun(Phase::StopReplication) => {}
    }
}

/// Returns when the collector has ended.
async fn watch(evidence: &Evidence, uplink: &Uplink) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let pods = uplink.is_out_of_reach().then(|| uplink.replica().pods());
        let Some(trips) = evidence.guards(pods).await else { return };
        for trip in trips {
            uplink.trip(trip).await;
        }
    }
}

struct Teller<'u> {
    uplink: &'u Uplink,
    environment: String,
    identity: Identity,
    /// And that was told.
    is_failing: bool,
}

impl Teller<'_> {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.uplink.replica().tripped() == 0 || self.uplink.is_out_of_reach() {
                continue;
            }
            for trip in self.uplink.replica().trips() {
                if let Err(reason) = self.tell(trip).await {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(
                            reason,
                            "a local trip could not be told to the control plane; it stands, and is told until it is answered"
                        );
                    }
                    break;
                }
                self.is_failing = false;
            }
        }
    }

    async fn tell(&self, trip: Trip) -> Result<(), String> {
        let (environment, identity) = (self.environment.clone(), Some(self.identity.clone().into()));
        let request = v1::ReportTripRequest { environment, identity, trip: Some(trip.clone().into()) };
        let mut client = EvidenceClient::new(self.uplink.channel());
        let answer = timeout(ANSWER_WITHIN, client.report_trip(request)).await.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        match answer.outcome() {
            // The kill itself comes by its own lane.
            Outcome::Killed => tracing::info!(flag = trip.flag, "the control plane has killed a flag that was tripped here"),
            Outcome::Obsolete => {
                tracing::info!(flag = trip.flag, why = answer.why, "the control plane says that a local trip is obsolete");
                self.uplink.lift(trip).await;
            }
            Outcome::Unspecified => return Err("an answer that is not known here".to_owned()),
        }
        Ok(())
    }
}
