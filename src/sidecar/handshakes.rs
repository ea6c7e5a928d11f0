//! Handshakes of TLS that fail: who of the clients was not told of it, or does not trust the certificate. Each is counted, and of each kind
//! one line a minute is logged at most: whoever can connect could fill the log.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use rustls::{AlertDescription as Alert, Error, InvalidMessage};

/// Between two lines of one kind.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// What came is no TLS.
    Plaintext,
    /// The client does not take the certificate.
    Certificate,
    /// No version, cipher or application protocol is known to both.
    Protocol,
    /// It took too long.
    Timeout,
    /// The client left in the middle, or before it: probes of a port do.
    Closed,
    Other,
}

/// Since the start.
#[derive(Debug, Default)]
pub(super) struct Failures([Tally; Failed::ALL.len()]);

#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    told: Mutex<Told>,
}

/// The last line: when, and the count that it had reached.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    count: u64,
}

impl Failed {
    pub(super) const ALL: [Self; 6] = [Self::Plaintext, Self::Certificate, Self::Protocol, Self::Timeout, Self::Closed, Self::Other];

    pub(super) fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else { return Self::Closed };
        match error {
            // Of HTTP in clear the first letter would be the type of a record.
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plaintext,
            // The last: another root of the same name, which the signature does not fit.
            Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::DecryptError,
            ) => Self::Certificate,
            Error::PeerIncompatible(_)
            | Error::NoApplicationProtocol
            | Error::AlertReceived(
                Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity | Alert::NoApplicationProtocol,
            ) => Self::Protocol,
            _ => Self::Other,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Certificate => "certificate",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }

    /// What is to be done. Who only leaves has said nothing that is wrong.
    fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::Plaintext => "the client speaks in clear; tell it that this port speaks TLS",
            Self::Certificate => {
                "the client does not take the certificate; give it the root that signed it, and see that it asks by a name that is in it"
            }
            Self::Protocol => "the client offers no version (1.2, 1.3), cipher or protocol (h2, http/1.1) that is spoken here",
            Self::Timeout => "the client did not finish it in time",
            Self::Closed => return None,
            Self::Other => "the client breaks the rules of TLS",
        })
    }
}

impl Failures {
    pub(super) fn note(&self, failed: Failed, why: &dyn fmt::Display, peer: Option<SocketAddr>) {
        let Some(failures) = self.count(failed, Instant::now()) else { return };
        let Some(advice) = failed.advice() else { return };
        let (reason, peer) = (failed.name(), peer.map(tracing::field::display));
        tracing::warn!(reason, peer, failures, "a TLS handshake failed: {advice} ({why}); more of this reason are told once a minute");
    }

    /// How many there were since the last line, when it is time for one.
    fn count(&self, failed: Failed, now: Instant) -> Option<u64> {
        let Tally { count, told } = &self.0[failed as usize];
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = told.lock();
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < TOLD_EVERY) {
            return None;
        }
        let before = std::mem::replace(&mut *told, Told { at: Some(now), count }).count;
        // Another thread may have counted further and told of it.
        Some(count.saturating_sub(before).max(1))
    }
}

/// `yardarm_failed_handshakes_total`.
#[derive(Debug)]
pub(super) struct Handshakes(pub(super) Arc<Failures>);

impl Collector for Handshakes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "TLS handshakes that failed, by reason";
        let mut family = encoder.encode_descriptor("failed_handshakes", help, None, MetricType::Counter)?;
        for failed in Failed::ALL {
            let count = self.0.0[failed as usize].count.load(Ordering::Relaxed);
            ConstCounter::new(count).encode(family.encode_family(&[("reason", failed.name())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_kind_is_told_and_then_one_a_minute_with_the_count() {
        let (failures, began) = (Failures::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(failures.count(Failed::Plaintext, at(0)), Some(1));
        assert_eq!((1..60).filter_map(|second| failures.count(Failed::Plaintext, at(second))).count(), 0);
        assert_eq!(failures.count(Failed::Timeout, at(1)), Some(1), "another kind has a minute of its own");
        assert_eq!(failures.count(Failed::Plaintext, at(60)), Some(60));
        assert_eq!(failures.count(Failed::Plaintext, at(61)), None);
        assert_eq!(failures.count(Failed::Plaintext, at(500)), Some(2));
    }

    #[test]
    fn each_kind_has_a_name_and_a_count_of_its_own() {
        let failures = Failures::default();
        for (number, failed) in Failed::ALL.into_iter().enumerate() {
            (0..=number).for_each(|_| _ = failures.count(failed, Instant::now()));
        }
        let counts = failures.0.each_ref().map(|tally| tally.count.load(Ordering::Relaxed));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6]);
        let names: std::collections::BTreeSet<_> = Failed::ALL.map(Failed::name).into();
        assert_eq!(names.len(), Failed::ALL.len());
    }

    #[test]
    fn the_reason_is_what_tls_says_it_is() {
        let of = |error: Error| Failed::of(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(Error::InvalidMessage(InvalidMessage::InvalidContentType)), Failed::Plaintext);
        assert_eq!(of(Error::AlertReceived(Alert::UnknownCA)), Failed::Certificate);
        assert_eq!(of(Error::AlertReceived(Alert::DecryptError)), Failed::Certificate);
        assert_eq!(of(Error::NoApplicationProtocol), Failed::Protocol);
        assert_eq!(of(Error::AlertReceived(Alert::ProtocolVersion)), Failed::Protocol);
        assert_eq!(of(Error::DecryptError), Failed::Other);
        assert_eq!(Failed::of(&io::ErrorKind::UnexpectedEof.into()), Failed::Closed);
        assert_eq!(Failed::of(&io::ErrorKind::ConnectionReset.into()), Failed::Closed);
    }
}
