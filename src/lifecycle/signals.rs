//! SIGTERM and SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::Shutdown;

/// Requests the shutdown at the first SIGTERM or SIGINT; at the second the process exits at once with 128 + the number of the signal.
/// The handlers stand when this returns. Must be called inside a tokio runtime.
pub fn shut_down_on_signals(shutdown: Shutdown) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            let (name, kind) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", SignalKind::terminate()),
                _ = interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            };
            if shutdown.is_requested() {
                tracing::warn!(signal = name, "second signal: leaving at once, without draining");
                std::process::exit(128 + kind.as_raw_value());
            }
            tracing::info!(signal = name, "shutting down; a second signal leaves at once");
            shutdown.request();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const CHILD: &str = "YARDARM_TEST_SIGNALLED_CHILD";

    /// Runs itself once more as a process of its own, because the second signal ends the process that gets it.
    #[test]
    fn the_first_signal_asks_and_the_second_leaves_at_once() {
        if std::env::var_os(CHILD).is_some() {
            return stay_until_the_second_signal();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lifecycle::signals::tests::the_first_signal_asks_and_the_second_leaves_at_once", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        let mut until = |wanted: &str| assert!(lines.any(|line| line.unwrap().contains(wanted)), "the child never said {wanted:?}");
        until("handlers stand");
        kill_process(pid, Signal::TERM).unwrap();
        until("shutdown requested");
        kill_process(pid, Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }

    fn stay_until_the_second_signal() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shutdown = Shutdown::new();
            shut_down_on_signals(shutdown.clone()).unwrap();
            println!("handlers stand");
            shutdown.requested().await;
            println!("shutdown requested");
            std::future::pending::<()>().await;
        });
    }
}
