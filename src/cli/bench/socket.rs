//! A TCP or a Unix socket, read and written as far as it goes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(buffer),
            Self::Unix(stream) => stream.try_write(buffer),
        }
    }

    /// Writes what is in `outbox`, as far as the socket takes it, and reads what there is: at least one byte, unless the peer is done.
    /// Whoever only waits to write would wait for ever for a peer that does the same.
    pub async fn exchange(&self, outbox: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !outbox.is_empty() {
                match self.try_write(outbox) {
                    Ok(written) => drop(outbox.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            let interest = if outbox.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            if self.ready(interest).await?.is_readable() {
                match self.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            }
        }
    }

    /// Writes all of `outbox` without reading.
    pub async fn write_all(&self, outbox: &mut Vec<u8>) -> io::Result<()> {
        while !outbox.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            match self.try_write(outbox) {
                Ok(written) => drop(outbox.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
