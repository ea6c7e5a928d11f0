//! `yardarm control` and `yardarm sidecar`: a role in a process of its own.

#[cfg(feature = "control")]
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

#[cfg(feature = "control")]
use super::exit::innermost;
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::ready::{self, Addresses};
#[cfg(feature = "control")]
use crate::control;
use crate::lifecycle::{Shutdown, shut_down_on_signals, when_owner_is_gone};
use crate::{sidecar, telemetry};

#[cfg(feature = "control")]
#[derive(Debug, clap::Args)]
pub struct ControlArgs {
    #[command(flatten)]
    control: control::Args,
    #[command(flatten)]
    ready: ready::Args,
    #[command(flatten)]
    telemetry: telemetry::Args,
    #[command(flatten)]
    owned: Owned,
}

#[derive(Debug, clap::Args)]
pub struct SidecarArgs {
    #[command(flatten)]
    sidecar: sidecar::Args,
    #[command(flatten)]
    ready: ready::Args,
    #[command(flatten)]
    telemetry: telemetry::Args,
    #[command(flatten)]
    owned: Owned,
}

/// The servers of a benchmark are its own.
#[derive(Debug, clap::Args)]
struct Owned {
    /// End in order when standard input is closed, as it is once whoever started this is gone
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

#[cfg(feature = "control")]
pub fn control(args: ControlArgs, out: &mut Out) -> Outcome {
    let ControlArgs { control, telemetry, ready, owned } = args;
    host(None, &telemetry, async |shutdown| {
        owned.end_with_owner(&shutdown)?;
        free(control.listen, "the control plane", "--listen")?;
        if let Some(address) = control.webhooks.0 {
            free(address, "webhooks", "--webhooks")?;
        }
        let data = control.data.clone();
        let running = control::start(control, shutdown.clone()).await.map_err(unstartable)?;
        let addresses = Addresses::here(None, Some(ready::Control { grpc: running.grpc, webhooks: running.webhooks, data }), Vec::new());
        let _announced = ready.announce(&addresses)?;
        out.answer(&addresses, |out, addresses| match &addresses.control {
            Some(ready::Control { grpc, webhooks, data }) => {
                let webhooks = webhooks.map(|address| format!(", webhooks on http://{address}")).unwrap_or_default();
                out.line(format!("control plane on http://{grpc}{webhooks}, store in {}", data.display()))
            }
            None => Ok(()),
        })?;
        end(&shutdown).await
    })
}

pub fn sidecar(args: SidecarArgs, out: &mut Out) -> Outcome {
    let SidecarArgs { sidecar, telemetry, ready, owned } = args;
    // Answers are given by threads of the sidecar's own; here run replication and the management endpoints.
    host(Some(2), &telemetry, async |shutdown| {
        owned.end_with_owner(&shutdown)?;
        let (pod, environment, upstream) =
            (sidecar.upstream.pod.clone(), sidecar.upstream.environment.clone(), sidecar.upstream.control.clone());
        let sidecar::Running { tcp, uds, management, ofrep, sync, .. } =
            sidecar::start(sidecar, shutdown.clone()).await.map_err(unstartable)?;
        let addresses = Addresses::here(Some(environment), None, vec![ready::Sidecar { pod, tcp, socket: uds, management, ofrep, sync }]);
        let _announced = ready.announce(&addresses)?;
        let ofrep = ofrep.map(|address| format!(", OFREP on http://{address}")).unwrap_or_default();
        let sync = sync.map(|address| format!(", sync on {address}")).unwrap_or_default();
        out.answer(&addresses, |out, _| {
            out.line(format!("sidecar on {tcp}, management on http://{management}{ofrep}{sync}, follows {upstream}"))
        })?;
        end(&shutdown).await
    })
}

/// Runs a role on `threads` threads (one a core when not given) until it is asked to end.
pub fn host(threads: Option<usize>, telemetry: &telemetry::Args, role: impl AsyncFnOnce(Shutdown) -> Outcome) -> Outcome {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    // What a thread that read or wrote a state has freed is given back when the thread ends.
    builder.thread_keep_alive(Duration::from_secs(1));
    let runtime = builder.enable_all().build().map_err(|error| Failure::unable(format!("cannot start a runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let guard = telemetry::init(telemetry).map_err(unstartable)?;
        let shutdown = Shutdown::new();
        shut_down_on_signals(shutdown.clone()).map_err(|error| Failure::unable(format!("cannot listen for signals: {error}")))?;
        let outcome = role(shutdown).await;
        drop(guard);
        outcome
    });
    // What a part still does after its time was up is cut off.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Waits until the process is asked to end and has ended in order.
pub async fn end(shutdown: &Shutdown) -> Outcome {
    for overdue in shutdown.complete().await {
        tracing::warn!(phase = ?overdue.phase, held_by = overdue.held_by.join(", "), "not finished in its time and cut off");
    }
    Ok(Exit::Done)
}

/// Refuses an address that cannot be had before anything is started, and names the option that chose it.
#[cfg(feature = "control")]
pub fn free(address: SocketAddr, what: &str, option: &str) -> Result<(), Failure> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let port = address.port();
            Err(Failure::unable(format!(
                "port {port} for {what} is taken on {}; stop who listens there, or choose another with {option}",
                address.ip()
            )))
        }
        Err(error) => {
            Err(Failure::unable(format!("{what} cannot listen on {address}: {}; choose another address with {option}", innermost(&error))))
        }
    }
}

/// The whole chain of causes on one line. An error that already tells its cause does not tell it twice.
pub fn unstartable(error: anyhow::Error) -> Failure {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    Failure::unable(line)
}

impl Owned {
    fn end_with_owner(&self, shutdown: &Shutdown) -> Result<(), Failure> {
        if !self.until_stdin_ends {
            return Ok(());
        }
        let shutdown = shutdown.clone();
        let end = move || {
            tracing::info!("standard input was closed; shutting down");
            shutdown.request();
        };
        when_owner_is_gone(end).map_err(|error| Failure::unable(format!("cannot wait for the end of standard input: {error}")))
    }
}

impl Addresses {
    pub fn here(environment: Option<String>, control: Option<ready::Control>, sidecars: Vec<ready::Sidecar>) -> Self {
        Self { pid: std::process::id(), environment, control, sidecars }
    }
}
