//! A body read as a whole, for the protocols that have no frames: bounded in size and in time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

/// From the end of the header to the end of the body.
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(super) enum NotWhole {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {} s", WITHIN.as_secs())]
    Late,
    #[error("the body was broken off: {0}")]
    Broken(String),
}

pub(super) async fn read(body: Incoming, headers: &HeaderMap, limit: usize) -> Result<Bytes, NotWhole> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(NotWhole::TooLarge(limit));
    }
    match tokio::time::timeout(WITHIN, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(NotWhole::TooLarge(limit)),
        Ok(Err(error)) => Err(NotWhole::Broken(error.to_string())),
        Err(_) => Err(NotWhole::Late),
    }
}
