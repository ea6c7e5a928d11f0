//! A benchmark that is ended in the middle leaves nothing behind.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

/// At SIGTERM or SIGINT removes `dir` and leaves with 128 + the number of the signal, wherever the benchmark is: it waits in too many places
/// to be asked. Its servers need no word: they end with it, whatever ended it (see [`super::process::Server`]).
pub fn leave_nothing_behind(dir: PathBuf) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(inside);
    let wait = move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            }
        });
        // What cannot be removed lies where temporary files lie.
        let _ = std::fs::remove_dir_all(dir);
        std::process::exit(128 + kind.as_raw_value());
    };
    std::thread::Builder::new().name("interrupted".to_owned()).spawn(wait).map(drop)
}
