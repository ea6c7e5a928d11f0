//! A process that belongs to another one ends with it.

use std::io;

/// Calls `then` once standard input is closed. Whoever started this process with a pipe for it, and keeps the other end, closes it by ending,
/// however it ends: not even SIGKILL leaves a child behind.
pub fn when_owner_is_gone(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let wait = move || {
        // What comes in is for nobody, and a pipe that cannot be read is as good as closed.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        then();
    };
    std::thread::Builder::new().name("owner".to_owned()).spawn(wait).map(drop)
}
