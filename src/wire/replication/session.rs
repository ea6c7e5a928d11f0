//! What a sidecar says of itself: who it is, what it holds, what it applied and what it refused.

use crate::flag::{Digest, ItemName, Position, Revision};

use super::{Malformed, digest, item_kind, key, malformed};
use crate::wire::v1;

/// Longest name of an environment, pod, namespace, node or version, in bytes: that of a Kubernetes name.
pub const NAME_BYTES: usize = 253;
/// Most rejections in one acknowledgement, and most kills. A sidecar that has more names these.
pub const REJECTIONS: usize = 500;
pub const KILL_ACKS: usize = 1000;
const CAPABILITIES: usize = 100;
/// Longest message of a rejection that is kept, in bytes; the rest is cut off.
pub const MESSAGE_BYTES: usize = 512;
/// Longest message that a sidecar may send, in bytes. The longest acknowledgement is well below it.
pub const FROM_SIDECAR_BYTES: usize = 1 << 20;

/// One process of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// Minted at process start; two processes never share one.
    pub instance: String,
    pub pod: String,
    pub namespace: String,
    pub node: String,
    pub version: String,
}

/// What a sidecar holds when it says hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basis {
    pub position: Position,
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub environment: String,
    pub identity: Identity,
    /// `None` when nothing is held.
    pub basis: Option<Basis>,
    pub capabilities: Vec<String>,
    pub accepts_lz4: bool,
}

/// Where a sidecar stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    pub position: Position,
    pub digest: Digest,
    /// Visible to readers since: Unix time, microseconds, sidecar's clock.
    pub applied_at_us: i64,
    /// Everything that is refused, not only what was refused since the last acknowledgement.
    pub rejected: Vec<Rejection>,
    /// Kill registers that were applied ahead of the log.
    pub kills: Vec<KillAck>,
    /// Since the last proof that the newest state is held.
    pub age_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillAck {
    pub flag_key: String,
    pub revision: Revision,
    pub applied_at_us: i64,
}

/// An item that a sidecar refused, and what it serves instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub name: ItemName,
    pub revision: Revision,
    pub message: String,
    /// Revision of the version that is still served; 0 for none.
    pub held_revision: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResyncCause {
    Gap,
    DigestMismatch,
    Epoch,
    Corrupt,
}

/// What a sidecar says after its hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSidecar {
    Hello(Hello),
    Ack(Ack),
    Goodbye { reason: String },
    Resync(ResyncCause),
}

impl From<Identity> for v1::Identity {
    fn from(Identity { instance, pod, namespace, node, version }: Identity) -> Self {
        Self { instance, pod, namespace, node, version }
    }
}

/// A name that goes into logs and onto terminals: bounded, and without control characters.
fn name(text: String, field: &'static str) -> Result<String, Malformed> {
    if text.len() > NAME_BYTES {
        return Err(malformed(field, format!("has {} bytes, at most {NAME_BYTES} are allowed", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(malformed(field, "has a control character"));
    }
    Ok(text)
}

/// Text of any length for people to read: cut and cleaned instead of refused.
pub fn message(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

pub fn environment(text: String) -> Result<String, Malformed> {
    if text.is_empty() { Err(malformed("environment", "is missing")) } else { name(text, "environment") }
}

fn at_most<T>(limit: usize, items: &[T], field: &'static str) -> Result<(), Malformed> {
    match items.len() {
        count if count <= limit => Ok(()),
        count => Err(malformed(field, format!("has {count} entries, at most {limit} are allowed"))),
    }
}

pub fn identity(identity: Option<v1::Identity>) -> Result<Identity, Malformed> {
    let v1::Identity { instance, pod, namespace, node, version } = identity.ok_or_else(|| malformed("identity", "is missing"))?;
    if instance.is_empty() {
        return Err(malformed("identity.instance", "is empty"));
    }
    Ok(Identity {
        instance: name(instance, "identity.instance")?,
        pod: name(pod, "identity.pod")?,
        namespace: name(namespace, "identity.namespace")?,
        node: name(node, "identity.node")?,
        version: name(version, "identity.version")?,
    })
}

fn position(position: Option<v1::Position>, field: &'static str) -> Result<Position, Malformed> {
    position.map(Position::from).ok_or_else(|| malformed(field, "is missing"))
}

impl From<Basis> for v1::Basis {
    fn from(Basis { position, digest }: Basis) -> Self {
        Self { position: Some(position.into()), digest: digest.to_bytes().to_vec() }
    }
}

impl TryFrom<v1::Basis> for Basis {
    type Error = Malformed;

    fn try_from(basis: v1::Basis) -> Result<Self, Malformed> {
        Ok(Self { position: position(basis.position, "basis.position")?, digest: digest(&basis.digest)? })
    }
}

impl From<Hello> for v1::Hello {
    fn from(Hello { environment, identity, basis, capabilities, accepts_lz4 }: Hello) -> Self {
        Self { environment, identity: Some(identity.into()), basis: basis.map(Into::into), capabilities, accepts_lz4 }
    }
}

impl TryFrom<v1::Hello> for Hello {
    type Error = Malformed;

    fn try_from(hello: v1::Hello) -> Result<Self, Malformed> {
        let v1::Hello { environment: wanted, identity: who, basis, capabilities, accepts_lz4 } = hello;
        at_most(CAPABILITIES, &capabilities, "hello.capabilities")?;
        Ok(Self {
            environment: environment(wanted)?,
            identity: identity(who)?,
            basis: basis.map(Basis::try_from).transpose()?,
            capabilities: capabilities.into_iter().map(|text| name(text, "hello.capabilities")).collect::<Result<_, _>>()?,
            accepts_lz4,
        })
    }
}

impl From<Ack> for v1::Ack {
    fn from(Ack { position, digest, applied_at_us, rejected, kills, age_ms }: Ack) -> Self {
        Self {
            position: Some(position.into()),
            digest: digest.to_bytes().to_vec(),
            applied_at_us,
            rejected: rejected.into_iter().map(Into::into).collect(),
            kills: kills.into_iter().map(Into::into).collect(),
            age_ms,
        }
    }
}

impl TryFrom<v1::Ack> for Ack {
    type Error = Malformed;

    fn try_from(ack: v1::Ack) -> Result<Self, Malformed> {
        let v1::Ack { position: at, digest: sum, applied_at_us, rejected, kills, age_ms } = ack;
        at_most(REJECTIONS, &rejected, "ack.rejected")?;
        at_most(KILL_ACKS, &kills, "ack.kills")?;
        Ok(Self {
            position: position(at, "ack.position")?,
            digest: digest(&sum)?,
            applied_at_us,
            rejected: rejected.into_iter().map(Rejection::try_from).collect::<Result<_, _>>()?,
            kills: kills.into_iter().map(KillAck::try_from).collect::<Result<_, _>>()?,
            age_ms,
        })
    }
}

impl From<KillAck> for v1::KillAck {
    fn from(KillAck { flag_key, revision, applied_at_us }: KillAck) -> Self {
        Self { flag_key, revision, applied_at_us }
    }
}

impl TryFrom<v1::KillAck> for KillAck {
    type Error = Malformed;

    fn try_from(v1::KillAck { flag_key, revision, applied_at_us }: v1::KillAck) -> Result<Self, Malformed> {
        Ok(Self { flag_key: name(key(flag_key, "kill_ack.flag_key")?, "kill_ack.flag_key")?, revision, applied_at_us })
    }
}

impl From<Rejection> for v1::Rejection {
    fn from(Rejection { name: ItemName { kind, key }, revision, message, held_revision }: Rejection) -> Self {
        Self { kind: v1::ItemKind::from(kind).into(), key, revision, message, held_revision }
    }
}

impl TryFrom<v1::Rejection> for Rejection {
    type Error = Malformed;

    fn try_from(rejection: v1::Rejection) -> Result<Self, Malformed> {
        let v1::Rejection { kind, key: of, revision, message: text, held_revision } = rejection;
        let kind = item_kind(kind, "rejection.kind")?;
        let key = name(key(of, "rejection.key")?, "rejection.key")?;
        Ok(Self { name: ItemName { kind, key }, revision, message: message(&text), held_revision })
    }
}

impl From<ResyncCause> for v1::resync_request::Cause {
    fn from(cause: ResyncCause) -> Self {
        match cause {
            ResyncCause::Gap => Self::Gap,
            ResyncCause::DigestMismatch => Self::DigestMismatch,
            ResyncCause::Epoch => Self::Epoch,
            ResyncCause::Corrupt => Self::Corrupt,
        }
    }
}

/// A cause that is not known comes from a newer sidecar and is no reason to refuse it what it asks for.
impl From<v1::resync_request::Cause> for ResyncCause {
    fn from(cause: v1::resync_request::Cause) -> Self {
        use v1::resync_request::Cause;
        match cause {
            Cause::Gap => Self::Gap,
            Cause::DigestMismatch => Self::DigestMismatch,
            Cause::Epoch => Self::Epoch,
            Cause::Corrupt | Cause::Unspecified => Self::Corrupt,
        }
    }
}

impl TryFrom<v1::FollowRequest> for FromSidecar {
    type Error = Malformed;

    fn try_from(request: v1::FollowRequest) -> Result<Self, Malformed> {
        use v1::follow_request::Message;
        match request.message.ok_or_else(|| malformed("follow_request.message", "is missing"))? {
            Message::Hello(hello) => hello.try_into().map(Self::Hello),
            Message::Ack(ack) => ack.try_into().map(Self::Ack),
            Message::Goodbye(goodbye) => Ok(Self::Goodbye { reason: message(&goodbye.reason) }),
            Message::Resync(resync) => Ok(Self::Resync(resync.cause().into())),
        }
    }
}

impl From<FromSidecar> for v1::FollowRequest {
    fn from(said: FromSidecar) -> Self {
        use v1::follow_request::Message;
        let message = match said {
            FromSidecar::Hello(hello) => Message::Hello(hello.into()),
            FromSidecar::Ack(ack) => Message::Ack(ack.into()),
            FromSidecar::Goodbye { reason } => Message::Goodbye(v1::Goodbye { reason }),
            FromSidecar::Resync(cause) => {
                Message::Resync(v1::ResyncRequest { cause: v1::resync_request::Cause::from(cause).into(), held: None })
            }
        };
        Self { message: Some(message) }
    }
}
