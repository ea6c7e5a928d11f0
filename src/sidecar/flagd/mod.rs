//! flagd's evaluation service, for the providers that OpenFeature's SDKs have for it: one evaluator under flagd's three names, on the port
//! where they look for it. What they are answered is decided, counted and noted as what `Evaluate` answers.

mod events;
mod selected;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use tonic::Status;

use crate::flag::ErrorCode;
use crate::telemetry::evaluation::Evaluation;
use crate::wire::evaluation::flagd::{self as wire, Definition, Service, Type};
use crate::wire::evaluation::selection::{Scope, Selection};
use crate::wire::evaluation::{AllResolved, Answer, Encoding, Form, Refused};

use super::body::Body;
use super::call::Call;
use super::decide::MAX_BATCH_ANSWER_BYTES;
pub(super) use super::evaluate::MAX_QUESTION_BYTES;
use super::grpc::{not_ready, refuse, respond};
use super::pod::{Desk, Sdk};
use super::request_body::RequestBody;
use super::sdk::{MAX_JSON_BYTES, Of, Said, within};

pub(super) use events::event_stream;

/// What a client wants to see of the flags, as one `key=value` (flagd.md 1.7).
pub(super) const SELECTOR: &str = "flagd-selector";

/// A method under one of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Called {
    pub(super) service: Service,
    pub(super) method: Method,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    Resolve(Type),
    ResolveAll,
    EventStream,
}

/// Who asks, and for which flags.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) is_inspection: bool,
    pub(super) selection: Selection,
    /// Attributes that headers say, as an encoded `Struct`.
    pub(super) from_headers: Vec<u8>,
}

pub(super) fn at(path: &str) -> Option<Called> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = [Service::V2, Service::V1, Service::Schema].into_iter().find(|known| sdk(*known).name() == service)?;
    let method = Method::ALL.into_iter().find(|known| known.name() == method)?;
    // v2 has no such method (flagd.md 1.2).
    (service != Service::V2 || method != Method::ResolveAll).then_some(Called { service, method })
}

/// By gRPC.
pub(super) fn call(desk: &Arc<Desk>, called: Called, request: Request<RequestBody>) -> Call {
    let asking = match called.asking(desk, request.headers()) {
        Ok(asking) => asking,
        Err(status) => return Call::answered(refuse(status)),
    };
    if called.method == Method::EventStream {
        let desk = Arc::clone(desk);
        return Call::waiting(async move { called.events(desk, asking, request).await.map_or_else(refuse, respond) });
    }
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let most = desk.pod.contexts.max_body.unwrap_or(MAX_QUESTION_BYTES);
    Call::unary(desk, request, &name, most, move |desk, message, span| called.answer(desk, &asking, Encoding::Proto, message, span))
}

impl Method {
    const ALL: [Self; 7] = [
        Self::Resolve(Type::Boolean),
        Self::Resolve(Type::String),
        Self::Resolve(Type::Float),
        Self::Resolve(Type::Int),
        Self::Resolve(Type::Object),
        Self::ResolveAll,
        Self::EventStream,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resolve(Type::Boolean) => "ResolveBoolean",
            Self::Resolve(Type::String) => "ResolveString",
            Self::Resolve(Type::Float) => "ResolveFloat",
            Self::Resolve(Type::Int) => "ResolveInt",
            Self::Resolve(Type::Object) => "ResolveObject",
            Self::ResolveAll => "ResolveAll",
            Self::EventStream => "EventStream",
        }
    }
}

impl Called {
    pub(super) fn service_name(self) -> &'static str {
        sdk(self.service).name()
    }

    /// Counts the request, and reads what its header says.
    pub(super) fn asking(self, desk: &Desk, headers: &HeaderMap) -> Result<Asking, Status> {
        desk.sdk_requests.count(sdk(self.service));
        let mut asking = Asking::read(desk, headers).map_err(Status::invalid_argument)?;
        if self.service == Service::Schema {
            // flagd does not look at headers there (flagd.md 1.8).
            asking.from_headers = Vec::new();
        }
        Ok(asking)
    }

    pub(super) async fn events(self, desk: Arc<Desk>, asking: Asking, request: Request<RequestBody>) -> Result<Body, Status> {
        let deadline = deadline(&desk, self.service);
        event_stream(desk, asking, deadline, request).await
    }

    /// One message for one message: with its frame, or in JSON. No stream is answered so.
    pub(super) fn answer(
        self,
        desk: &Desk,
        asking: &Asking,
        encoding: Encoding,
        message: &[u8],
        span: Option<&Evaluation>,
    ) -> Result<Bytes, Status> {
        match self.method {
            Method::Resolve(of) => self.resolve(of, desk, asking, encoding, message, span),
            Method::ResolveAll => self.resolve_all(desk, asking, encoding, message),
            Method::EventStream => Err(Status::internal("events are no single answer")),
        }
    }
}

/// flagd's oldest name has none (flagd.md 1.4).
fn deadline(desk: &Desk, service: Service) -> Option<Duration> {
    desk.pod.stream_deadline.filter(|_| service != Service::Schema)
}

fn sdk(service: Service) -> Sdk {
    match service {
        Service::V2 => Sdk::FlagdV2,
        Service::V1 => Sdk::FlagdV1,
        Service::Schema => Sdk::FlagdSchema,
    }
}

impl Asking {
    /// # Errors
    /// What is wrong with the selector.
    pub(super) fn read(desk: &Desk, headers: &HeaderMap) -> Result<Self, String> {
        let selector = headers.get(SELECTOR).map_or(Ok(""), |selector| selector.to_str());
        Self::of(desk, headers, selector.map_err(|_| "the selector is no text".to_owned())?)
    }

    /// With a selector that stands elsewhere.
    pub(super) fn of(desk: &Desk, headers: &HeaderMap, selector: &str) -> Result<Self, String> {
        Ok(Self {
            is_inspection: desk.pod.observer.as_ref().is_some_and(|observer| observer.is_inspection(headers)),
            selection: Selection::parse(selector)?,
            from_headers: desk.pod.contexts.said_by(headers),
        })
    }

    pub(super) fn scope<'s>(&'s self, desk: &'s Desk) -> Scope<'s> {
        Scope { selection: &self.selection, environment: &desk.pod.environment }
    }
}

impl Called {
    fn resolve(
        self,
        of: Type,
        desk: &Desk,
        asking: &Asking,
        encoding: Encoding,
        message: &[u8],
        span: Option<&Evaluation>,
    ) -> Result<Bytes, Status> {
        let service = self.service;
        let mut question = wire::read_question(message).map_err(unreadable)?;
        question.context = desk.pod.contexts.enrich(question.context, asking).map_err(unreadable)?;
        question.wanted = Some(of.value_type());
        let form = match encoding {
            Encoding::Proto => Form::Resolved(of),
            Encoding::Json => Form::ResolvedInJson(of, service),
        };
        // The span is told of the answer.
        let kept = span.is_none().then_some(form);
        let resolved = desk.answer_sdk(&question, asking, kept, |said| match said {
            Said::Written(message) => Ok(Bytes::copy_from_slice(message)),
            Said::Answer(answer, Of { kind, definition }) => {
                if let Some(span) = span {
                    span.decided(&desk.outcome(&question, answer));
                }
                resolved(answer, service, definition).map(|()| form.write(answer, kind, definition, asking.scope(desk)).into())
            }
        });
        resolved.unwrap_or_else(|| Err(failed(ErrorCode::General)))
    }

    /// What becomes of each flag is in the answer; the span of such a call says only that they were asked for.
    fn resolve_all(self, desk: &Desk, asking: &Asking, encoding: Encoding, message: &[u8]) -> Result<Bytes, Status> {
        let service = self.service;
        let context = wire::read_question_of_all(message).map_err(unreadable)?;
        let context = desk.pod.contexts.enrich(context, asking).map_err(unreadable)?;
        let scope = asking.scope(desk);
        let form = AllResolved::form(service, encoding);
        let most = match encoding {
            Encoding::Proto => MAX_BATCH_ANSWER_BYTES,
            Encoding::Json => MAX_JSON_BYTES,
        };
        let begin = || AllResolved::new(service, encoding);
        let all = desk.answer_all(&context, asking, form, begin, |all, flag_key, said| {
            match said {
                Said::Written(flag) => all.push(flag),
                // What has no value and no default has no place here (flagd.md 1.6).
                Said::Answer(answer, Of { definition, .. }) if answer.error.is_none() && resolved(answer, service, definition).is_err() => {
                }
                Said::Answer(answer, Of { kind, definition }) => all.push(&form.write(answer, kind, definition, scope)),
            }
            within(most, all.len(), flag_key)
        })?;
        Ok(all.finish(scope))
    }
}

/// Whether the answer is a success under this name.
fn resolved(answer: &Answer<'_>, service: Service, definition: &Definition) -> Result<(), Status> {
    if let Some(code) = answer.error {
        return Err(failed(code));
    }
    // v1 cannot say that a value is absent: without one for DEFAULT there is no flag (flagd.md 1.6), and the caller takes its own default.
    // flagd's `schema.v1` gives a zero there, which no caller can tell from a value: it is answered as v1 is.
    if answer.value.is_none() && service != Service::V2 && wire::reason(answer, definition) == "DEFAULT" {
        return Err(failed(ErrorCode::FlagNotFound));
    }
    Ok(())
}

/// flagd's status and message for each error (flagd.md 1.5), but INTERNAL for what flagd says UNKNOWN: it is the same to every client, and
/// they ask again after UNKNOWN until their deadline is over.
fn failed(code: ErrorCode) -> Status {
    match code {
        ErrorCode::FlagNotFound => Status::not_found("Flag not found"),
        ErrorCode::TypeMismatch => Status::invalid_argument("Type mismatch error"),
        ErrorCode::ParseError => Status::data_loss(UNREADABLE),
        ErrorCode::ProviderNotReady => not_ready(),
        ErrorCode::TargetingKeyMissing | ErrorCode::InvalidContext | ErrorCode::General => Status::internal("General error"),
    }
}

const UNREADABLE: &str = "Error parsing input or configuration";

/// What cannot be taken is flagd's parse error, and not INVALID_ARGUMENT, which its clients take for a mismatch of types.
fn unreadable(refused: Refused) -> Status {
    Status::data_loss(format!("{UNREADABLE}: {refused}"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn every_error_has_the_status_and_the_message_of_flagd() {
        for (code, status, message) in [
            (ErrorCode::FlagNotFound, Code::NotFound, "Flag not found"),
            (ErrorCode::TypeMismatch, Code::InvalidArgument, "Type mismatch error"),
            (ErrorCode::ParseError, Code::DataLoss, "Error parsing input or configuration"),
            (ErrorCode::General, Code::Internal, "General error"),
            (ErrorCode::InvalidContext, Code::Internal, "General error"),
            (ErrorCode::TargetingKeyMissing, Code::Internal, "General error"),
        ] {
            let said = failed(code);
            assert_eq!((said.code(), said.message()), (status, message));
        }
    }

    #[test]
    fn only_what_flagd_has_is_found() {
        for service in ["flagd.evaluation.v2.Service", "flagd.evaluation.v1.Service", "schema.v1.Service"] {
            for method in ["ResolveBoolean", "ResolveString", "ResolveFloat", "ResolveInt", "ResolveObject", "EventStream"] {
                assert!(at(&format!("/{service}/{method}")).is_some(), "{service}/{method}");
            }
            assert_eq!(at(&format!("/{service}/ResolveAll")).is_some(), service != "flagd.evaluation.v2.Service");
        }
        for path in
            ["/flagd.evaluation.v3.Service/ResolveInt", "/schema.v1.Service/Resolve", "/schema.v1.Service", "schema.v1.Service/ResolveInt"]
        {
            assert!(at(path).is_none(), "{path}");
        }
    }
}
