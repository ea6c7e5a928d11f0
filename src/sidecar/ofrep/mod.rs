//! OpenFeature's remote evaluation protocol (OFREP 0.3.0) over HTTP/1.1 and HTTP/2, for the SDKs that have a provider for it. Answers and
//! errors are those of flagd (flagd.md 1.9), with the `ETag` of the protocol, which flagd 0.16 lacks.

mod refetch;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use crate::flag::{ErrorCode, metro64};
use crate::wire::evaluation::ofrep::{self as wire, Asked};
use crate::wire::evaluation::selection::{Scope, Selection};
use crate::wire::evaluation::{Form, Question, Refused};

use super::body::Body;
use super::flagd::Asking;
use super::grpc::{contained, not_ready};
use super::pod::{Desk, Sdk};
use super::request_body::RequestBody;
use super::sdk::{MAX_JSON_BYTES, Of, Said, within};
use super::whole::{self, NotWhole};

/// Of a body, in bytes: a context at its limit of 64 KiB, should every character of it be escaped.
const BODY_BYTES: usize = 256 * 1024;

const FLAGS: &str = "/ofrep/v1/evaluate/flags";

/// flagd's path (flagd.md 1.9).
const EVENTS: &str = "/ofrep/v1/sse";

/// A page that nobody looks at gives its stream up after so many seconds.
const INACTIVE_S: u32 = 120;

const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

type Answer = Response<Body>;

/// An answer that ends what was begun.
type Refusal = Box<Answer>;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    Flag,
    Flags,
    Events,
}

/// Whether it is served here, if it is served at all.
pub(super) fn is_at(path: &str) -> bool {
    path.starts_with("/ofrep/")
}

impl Endpoint {
    pub(super) fn at(path: &str) -> Option<Self> {
        match key_of(path) {
            Some(Key::One(_)) => Some(Self::Flag),
            Some(Key::All) => Some(Self::Flags),
            None => events_of(path).map(|_| Self::Events),
        }
    }

    /// Its path, with names for what varies.
    pub(super) fn template(self) -> &'static str {
        match self {
            Self::Flag => "/ofrep/v1/evaluate/flags/{key}",
            Self::Flags => FLAGS,
            Self::Events => EVENTS,
        }
    }
}

pub(super) async fn answer(desk: Arc<Desk>, request: Request<RequestBody>) -> Answer {
    desk.sdk_requests.count(Sdk::Ofrep);
    let (head, body) = request.into_parts();
    if let Some(selector) = events_of(head.uri.path()) {
        return events(&desk, &head, selector);
    }
    let Some(key) = key_of(head.uri.path()) else {
        return refused(StatusCode::NOT_FOUND, &format!("nothing is served at {}", head.uri.path()));
    };
    if head.method != Method::POST {
        return only_by("POST", "flags are evaluated by POST");
    }
    let most = desk.pod.contexts.max_body.unwrap_or(BODY_BYTES);
    let body = match whole::read(body, &head.headers, most).await {
        Ok(body) => body,
        Err(wrong) => return unread(&wrong),
    };
    let answered = contained(|| {
        Ok(match key {
            Key::One(key) => one(&desk, &unescaped(key), &head.headers, &body),
            Key::All => all(&desk, &head, &body),
        })
    });
    answered.unwrap_or_else(|status| json_answer(StatusCode::INTERNAL_SERVER_ERROR, &error(ErrorCode::General, status.message())))
}

/// As it stands in the path.
#[derive(Debug, PartialEq)]
enum Key<'p> {
    One(&'p str),
    All,
}

fn only_by(method: &'static str, details: &str) -> Answer {
    let mut answer = refused(StatusCode::METHOD_NOT_ALLOWED, details);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    answer
}

/// The selector in the path of an event stream: a browser's `EventSource` sends no header.
fn events_of(path: &str) -> Option<String> {
    match path.strip_prefix(EVENTS)? {
        "" | "/" => Some(String::new()),
        selector => selector.strip_prefix('/').map(unescaped),
    }
}

fn events(desk: &Arc<Desk>, head: &Parts, selector: String) -> Answer {
    if head.method != Method::GET {
        return only_by("GET", "events are streamed by GET");
    }
    let asking = match selector.is_empty() {
        true => Asking::read(desk, &head.headers),
        false => Asking::of(desk, &head.headers, &selector),
    };
    match asking {
        Ok(asking) => refetch::stream(desk, asking, &head.headers),
        Err(wrong) => json_answer(StatusCode::BAD_REQUEST, &error(ErrorCode::General, &wrong)),
    }
}

/// `None`: nothing is served there.
fn key_of(path: &str) -> Option<Key<'_>> {
    match path.strip_prefix(FLAGS)? {
        "" | "/" => Some(Key::All),
        key => key.strip_prefix('/').map(Key::One),
    }
}

/// `%41` is `A`. What is no escape stays as it is: there is no flag of that name.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn unread(wrong: &NotWhole) -> Answer {
    let status = match wrong {
        NotWhole::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        NotWhole::Late => StatusCode::REQUEST_TIMEOUT,
        NotWhole::Broken(_) => StatusCode::BAD_REQUEST,
    };
    refused(status, &wrong.to_string())
}

fn one(desk: &Desk, key: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    let asking = Asking::read(desk, headers);
    let all = Selection::All;
    let scope = Scope { selection: asking.as_ref().map_or(&all, |asking| &asking.selection), environment: &desk.pod.environment };
    let failed = |code: ErrorCode, details: &str| json_answer(status_of(code), &wire::failed(key, code, details, scope));
    let asking = match &asking {
        Ok(asking) => asking,
        Err(wrong) => return failed(ErrorCode::General, wrong),
    };
    let asked = match Asked::read(body) {
        Ok(asked) => asked,
        Err(wrong) => return failed(ErrorCode::ParseError, &wrong),
    };
    let context = match asked.context().and_then(|context| desk.pod.contexts.enrich(context, asking)) {
        Ok(context) => context,
        Err(refused) => return failed(ErrorCode::InvalidContext, &refused.to_string()),
    };
    let question = Question { flag_key: key, context, ..Question::default() };
    let evaluated = desk.answer_sdk(&question, asking, Some(Form::Ofrep), |said| match said {
        Said::Written(text) => of_json(StatusCode::OK, text.to_vec()),
        Said::Answer(answer, Of { kind, definition }) => {
            let text = Form::Ofrep.write(answer, kind, definition, scope);
            with_retry(of_json(answer.error.map_or(StatusCode::OK, status_of), text))
        }
    });
    evaluated.unwrap_or_else(|| failed(ErrorCode::General, "a bug in the sidecar: nothing was answered"))
}

fn all(desk: &Desk, head: &Parts, body: &[u8]) -> Answer {
    let asking = match Asking::read(desk, &head.headers) {
        Ok(asking) => asking,
        Err(wrong) => return json_answer(StatusCode::BAD_REQUEST, &error(ErrorCode::General, &wrong)),
    };
    // An event named a state that is not the one that is held: whoever asks for that gets all of what there is.
    let is_another = head.uri.query().and_then(announced).is_some_and(|tag| tag != refetch::tag(desk, &asking));
    match evaluate_all(desk, &asking, body) {
        Ok(body) => tagged(body, &head.headers, is_another),
        Err(refusal) => *refusal,
    }
}

/// The tag that came with an event, handed back.
fn announced(query: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix("flagConfigEtag=")).map(|tag| unescaped(tag).trim_matches('"').to_owned())
}

fn evaluate_all(desk: &Desk, asking: &Asking, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let failed = |code: ErrorCode, details: &str| Box::new(json_answer(status_of(code), &error(code, details)));
    let asked = Asked::read(body).map_err(|wrong| failed(ErrorCode::ParseError, &wrong))?;
    let context = asked.context().and_then(|context| desk.pod.contexts.enrich(context, asking));
    let context = context.map_err(|refused: Refused| failed(ErrorCode::InvalidContext, &refused.to_string()))?;
    let scope = asking.scope(desk);
    let begin = || br#"{"flags":["#.to_vec();
    // Written as they are decided: of a large environment the answer is large enough by itself.
    let mut out = desk
        .answer_all(&context, asking, Form::Ofrep, begin, |out: &mut Vec<u8>, flag_key, said| {
            if !out.ends_with(b"[") {
                out.push(b',');
            }
            match said {
                Said::Written(text) => out.extend_from_slice(text),
                Said::Answer(answer, Of { kind, definition }) => {
                    out.extend_from_slice(&Form::Ofrep.write(answer, kind, definition, scope));
                }
            }
            within(MAX_JSON_BYTES, out.len(), flag_key)
        })
        .map_err(|status| Box::new(of_status(&status)))?;
    let events = json!([{ "type": "sse", "endpoint": { "requestUri": events_at(&asking.selection) }, "inactivityDelaySec": INACTIVE_S }]);
    out.extend_from_slice(format!(r#"],"metadata":{},"eventStreams":{events}}}"#, wire::metadata_of_all(scope)).as_bytes());
    Ok(out)
}

/// Where a client of this selection hears of changes.
fn events_at(selection: &Selection) -> String {
    let selector = match selection {
        Selection::All => return EVENTS.to_owned(),
        Selection::Set(set) => format!("flagSetId={set}"),
        Selection::Source(source) => format!("source={source}"),
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let escaped = selector.bytes().map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    format!("{EVENTS}/{}", escaped.collect::<String>())
}

/// The tag is of the body, so that it depends on who asks too.
fn tagged(body: Vec<u8>, headers: &HeaderMap, is_another: bool) -> Answer {
    let tag = format!("\"{:016x}\"", metro64(&body));
    let is_known = !is_another && headers.get_all(header::IF_NONE_MATCH).iter().any(|known| has_tag(known, &tag));
    let mut answer = match is_known {
        true => {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        }
        false => of_json(StatusCode::OK, body),
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

/// Compared weakly, as RFC 9110 says for `If-None-Match`. None of our tags has a comma in it.
fn has_tag(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// flagd's (flagd.md 1.9), and 503 for what a client should ask again.
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::FlagNotFound => StatusCode::NOT_FOUND,
        ErrorCode::ProviderNotReady => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::TypeMismatch
        | ErrorCode::TargetingKeyMissing
        | ErrorCode::InvalidContext
        | ErrorCode::ParseError
        | ErrorCode::General => StatusCode::BAD_REQUEST,
    }
}

fn of_status(status: &Status) -> Answer {
    match status.code() {
        Code::Unavailable => json_answer(StatusCode::SERVICE_UNAVAILABLE, &error(ErrorCode::ProviderNotReady, not_ready().message())),
        // Also what is more than is sent, for which the protocol has no status of its own (flagd.md 1.9).
        _ => json_answer(StatusCode::INTERNAL_SERVER_ERROR, &error(ErrorCode::General, status.message())),
    }
}

fn error(code: ErrorCode, details: &str) -> Json {
    json!({ "errorCode": code.as_str(), "errorDetails": details })
}

/// Of a request that asked for no flag. Without a code: the protocol has none for it.
fn refused(status: StatusCode, details: &str) -> Answer {
    json_answer(status, &json!({ "errorDetails": details }))
}

fn json_answer(status: StatusCode, body: &Json) -> Answer {
    with_retry(of_json(status, body.to_string().into_bytes()))
}

/// Says when to ask again, where that helps.
fn with_retry(mut answer: Answer) -> Answer {
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    answer
}

fn of_json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Body::Plain(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_flag_or_all() {
        let asked = |path| {
            key_of(path).map(|key| match key {
                Key::One(key) => unescaped(key),
                Key::All => panic!("{path} names all"),
            })
        };
        let one = |key: &str| Some(key.to_owned());
        assert_eq!(key_of("/ofrep/v1/evaluate/flags"), Some(Key::All));
        assert_eq!(key_of("/ofrep/v1/evaluate/flags/"), Some(Key::All));
        assert_eq!(asked("/ofrep/v1/evaluate/flags/my.flag-1_a"), one("my.flag-1_a"));
        assert_eq!(asked("/ofrep/v1/evaluate/flags/%6dy%2Eflag"), one("my.flag"));
        assert_eq!(asked("/ofrep/v1/evaluate/flags/a%2"), one("a%2"));
        assert_eq!(asked("/ofrep/v1/evaluate/flags/%zz%"), one("%zz%"));
        assert_eq!(asked("/ofrep/v1/evaluate/flags/%ff"), one("\u{fffd}"));
        assert_eq!(asked("/ofrep/v1/evaluate/flagsx"), None);
        assert_eq!(asked("/ofrep/v1/configuration"), None);
    }

    #[test]
    fn a_stream_of_events_is_found_where_it_is_said_to_be() {
        for selection in [Selection::All, Selection::Set("a b/\u{e4}".into()), Selection::Set(String::new()), Selection::Source("x".into())]
        {
            let selector = events_of(&events_at(&selection)).unwrap();
            assert_eq!(Selection::parse(&selector).unwrap(), selection, "{selector}");
        }
        assert_eq!(events_of("/ofrep/v1/sse/"), Some(String::new()));
        assert_eq!((events_of("/ofrep/v1/ssex"), events_of("/ofrep/v1/evaluate/flags")), (None, None));
    }

    #[test]
    fn the_tag_of_an_event_comes_back_in_the_query() {
        assert_eq!(announced("a=b&flagConfigEtag=%22abc%22").as_deref(), Some("abc"));
        assert_eq!(announced("flagConfigEtag=abc&flagConfigLastModified=1").as_deref(), Some("abc"));
        assert_eq!(announced("flagConfigLastModified=1"), None);
    }

    #[test]
    fn a_tag_is_known_among_others_weak_or_not() {
        for (known, expected) in
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", W/\"a\"", true), ("*", true), ("\"b\"", false), ("a", false), ("", false)]
        {
            assert_eq!(has_tag(&HeaderValue::from_static(known), "\"a\""), expected, "{known}");
        }
    }
}
