//! TLS of a port as flagd has it: a certificate and its key in two files, read once when the process starts. Clients need no certificate.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::handshakes::{Failed, Failures};
use super::sniff::{Begun, Speaks, listen_to};

const CERTIFICATE: &str = "--server-cert-path";
const KEY: &str = "--server-key-path";

#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("cannot read {option} {}: {source}", path.display())]
    Unread { option: &'static str, path: PathBuf, source: io::Error },
    /// Without what was found: it may be the key.
    #[error("{option} {} is no {expected} in PEM: {wrong}", path.display())]
    NoPem { option: &'static str, path: PathBuf, expected: &'static str, wrong: String },
    #[error("{KEY} {} does not fit {CERTIFICATE} {}: {source}", key.display(), certificate.display())]
    Misfit { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Clones are one set of sessions, and of failures.
#[derive(Clone)]
pub struct Tls {
    settings: Arc<ServerConfig>,
    failures: Arc<Failures>,
}

impl fmt::Debug for Tls {
    /// Nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// The certificate first in its file, and those that lead to the root after it.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Unusable> {
        let text = |option, path: &Path| fs::read(path).map_err(|source| Unusable::Unread { option, path: path.to_owned(), source });
        let no_pem = |option, path: &Path, expected, wrong| Unusable::NoPem { option, path: path.to_owned(), expected, wrong };
        let (certificates, secret) = (text(CERTIFICATE, certificate)?, text(KEY, key)?);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| no_pem(CERTIFICATE, certificate, "certificate", said(&error)))?;
        if chain.is_empty() {
            return Err(no_pem(CERTIFICATE, certificate, "certificate", said(&pem::Error::NoItemsFound)));
        }
        let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| no_pem(KEY, key, "private key", said(&error)))?;
        let misfit = |source| Unusable::Misfit { certificate: certificate.to_owned(), key: key.to_owned(), source };
        let mut settings = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(misfit)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(misfit)?;
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { settings: Arc::new(settings), failures: Arc::default() })
    }

    pub(super) fn failures(&self) -> Arc<Failures> {
        Arc::clone(&self.failures)
    }

    /// Shakes hands and hears which HTTP is spoken, both `within` this time. `None`: the peer left, was late, or does not speak TLS.
    pub(super) async fn listen_to<I>(&self, io: I, peer: Option<SocketAddr>, within: Duration) -> Option<(Speaks, Begun<TlsStream<I>>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let deadline = Instant::now() + within;
        let io = match timeout_at(deadline, TlsAcceptor::from(Arc::clone(&self.settings)).accept(io)).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => {
                self.failures.note(Failed::of(&error), &error, peer);
                return None;
            }
            Err(late) => {
                self.failures.note(Failed::Timeout, &late, peer);
                return None;
            }
        };
        timeout_at(deadline, listen_to(io)).await.ok()?
    }
}

fn said(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds none".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section has no beginning".to_owned(),
        pem::Error::Base64Decode(_) => "it holds no base64".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}
