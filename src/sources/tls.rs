//! TLS of a source: whose certificates are trusted, and the handshake.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those of the system; the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    System,
    /// These alone, in PEM.
    File(PathBuf),
}

/// What a source trusts, read once.
#[derive(Clone)]
pub(super) struct Trust(TlsConnector);

impl Roots {
    pub(super) fn of(cert_path: &str) -> Self {
        if cert_path.is_empty() { Self::System } else { Self::File(cert_path.into()) }
    }

    /// `speaks`: the protocol that is asked for inside.
    pub(super) fn read(&self, speaks: &[u8]) -> anyhow::Result<Trust> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                anyhow::ensure!(
                    !roots.is_empty(),
                    "this system has no root certificates; install them (ca-certificates), or name a file with SSL_CERT_FILE or `certPath`"
                );
            }
            Self::File(path) => {
                let shown = path.display();
                let text = std::fs::read(path).with_context(|| format!("cannot read `certPath` {shown}"))?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    let added = certificate.map_err(anyhow::Error::new).and_then(|der| Ok(roots.add(der)?));
                    added.with_context(|| format!("`certPath` {shown} is no certificate in PEM"))?;
                }
                anyhow::ensure!(!roots.is_empty(), "`certPath` {shown} holds no certificate in PEM");
            }
        }
        let mut settings = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        settings.alpn_protocols = vec![speaks.to_vec()];
        Ok(Trust(TlsConnector::from(Arc::new(settings))))
    }
}

impl Trust {
    /// `host` may be an address of IPv6 in brackets.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(bare(host).to_owned())?;
        self.0.connect(name, stream).await.with_context(|| format!("TLS with {host}"))
    }
}

/// An address of IPv6 stands in brackets in a URI.
pub(super) fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}
