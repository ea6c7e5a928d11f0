//! Binding: a TCP address or the path of a Unix socket, with errors that say what stands in the way.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

/// Connections that wait to be accepted; Linux cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {source}; stop what listens there or choose another address with {option}")]
    Tcp { address: SocketAddr, option: &'static str, source: io::Error },
    #[error("cannot listen on {path}: another process answers on this socket; stop it or choose another path with {option}")]
    SocketInUse { path: PathBuf, option: &'static str },
    #[error("cannot listen on {path}: there is a file that is no socket, which is left alone; choose another path with {option}")]
    NotASocket { path: PathBuf, option: &'static str },
    #[error("cannot listen on {path}: {source}; the directory must exist and be writable, see {option}")]
    Socket { path: PathBuf, option: &'static str, source: io::Error },
}

/// Whether an address is shared with a process that serves on it now and is about to leave (`--hand-over`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    Alone,
    Over,
}

/// `option` is the argument that chose the address. Must be called inside a tokio runtime.
pub(super) fn tcp(address: SocketAddr, option: &'static str, take: Take) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Lets a restart bind while connections of the process before it are in TIME_WAIT; it does not let two processes listen.
        socket.set_reuse_address(true)?;
        // This does, for processes of one user that all say so: the kernel deals new connections out among those that listen.
        socket.set_reuse_port(take == Take::Over)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| BindError::Tcp { address, option, source })
}

/// A listening Unix socket; its file goes when it is dropped.
#[derive(Debug)]
pub(super) struct UnixSocket {
    pub(super) listener: UnixListener,
    file: SocketFile,
}

impl UnixSocket {
    /// For the last ones that wait. The file is gone then: nobody finds a socket that is about to close.
    pub(super) fn into_std(self) -> io::Result<std::os::unix::net::UnixListener> {
        self.listener.into_std()
    }
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// A file that a dead process left behind is replaced; one on which somebody answers only when it is handed over, and then there is a socket
/// at the path at any time. Must be called inside a tokio runtime.
pub(super) fn unix(path: &Path, option: &'static str, take: Take) -> Result<UnixSocket, BindError> {
    let failed = |source| BindError::Socket { path: path.to_owned(), option, source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned(), option }),
        Ok(_) if take == Take::Over => {
            let beside = path.with_added_extension(std::process::id().to_string());
            let mut socket = unix(&beside, option, Take::Alone)?;
            fs::rename(&beside, path).map_err(failed)?;
            path.clone_into(&mut socket.file.path);
            return Ok(socket);
        }
        Ok(_) => match StdUnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            Ok(_) | Err(_) => return Err(BindError::SocketInUse { path: path.to_owned(), option }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    let file = SocketFile { path: path.to_owned(), inode };
    // Applications of the pod reach it through a shared group (fsGroup), others do not.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(UnixSocket { listener, file })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A newer process may have put its own socket there.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_option() {
        let taken = tcp(SocketAddr::from(([127, 0, 0, 1], 0)), "--listen", Take::Alone).unwrap().local_addr();
        let holder = tcp(SocketAddr::from(([127, 0, 0, 1], 0)), "--listen", Take::Alone).unwrap();
        let address = holder.local_addr().unwrap();
        let error = tcp(address, "--listen", Take::Alone).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
        assert!(taken.is_ok());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("yardarm.sock");
        // A listener that std drops leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = unix(&path, "--socket", Take::Alone).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(unix(&path, "--socket", Take::Alone), Err(BindError::SocketInUse { .. })));
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_address_is_shared_only_by_those_who_hand_it_over() {
        let first = tcp(SocketAddr::from(([127, 0, 0, 1], 0)), "--listen", Take::Over).unwrap();
        let address = first.local_addr().unwrap();
        let second = tcp(address, "--listen", Take::Over).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        assert!(matches!(tcp(address, "--listen", Take::Alone), Err(BindError::Tcp { .. })));
    }

    #[tokio::test]
    async fn a_socket_that_is_handed_over_is_there_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("yardarm.sock");
        let first = unix(&path, "--socket", Take::Over).unwrap();
        let second = unix(&path, "--socket", Take::Over).unwrap();
        // Who left first does not take the file of the other with it.
        drop(first);
        StdUnixStream::connect(&path).unwrap();
        second.listener.accept().await.unwrap();
        drop(second);
        assert!(!path.exists() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(unix(&path, "--socket", Take::Alone), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
