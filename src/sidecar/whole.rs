//! A body read as a whole, for the protocols that have no frames: bounded in size and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::request_body::RequestBody;

/// From the end of the header to the end of the body.
const WITHIN: Duration = Duration::from_secs(10);

/// A body that is too large is read on for a moment and thrown away: a peer that is still sending would find the connection closed, and not
/// hear why.
const THROWN_AWAY_WITHIN: Duration = Duration::from_millis(500);
const THROWN_AWAY_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum NotWhole {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {} s", WITHIN.as_secs())]
    Late,
    #[error("the body was broken off: {0}")]
    Broken(String),
}

pub(super) async fn read(mut body: RequestBody, headers: &HeaderMap, limit: usize) -> Result<Bytes, NotWhole> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let end = Instant::now() + WITHIN;
    let mut whole = BytesMut::new();
    let mut is_too_large = announced.is_some_and(|length| length > limit);
    while !is_too_large {
        let frame = match timeout_at(end, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(NotWhole::Broken(error.to_string())),
            Ok(None) => return Ok(whole.freeze()),
            Err(_) => return Err(NotWhole::Late),
        };
        let Ok(data) = frame.into_data() else { continue };
        is_too_large = whole.len() + data.len() > limit;
        if !is_too_large {
            whole.extend_from_slice(&data);
        }
    }
    drop(whole);
    if announced.is_none_or(|length| length <= THROWN_AWAY_BYTES) {
        // How it ends does not matter.
        _ = timeout(THROWN_AWAY_WITHIN, throw_away(body)).await;
    }
    Err(NotWhole::TooLarge(limit))
}

async fn throw_away(mut body: RequestBody) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > THROWN_AWAY_BYTES {
            return;
        }
    }
}
