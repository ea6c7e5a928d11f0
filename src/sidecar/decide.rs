//! From a question to an answer. The flag is decided under the guard of the map and the answer is taken down before the guard falls, so
//! that nothing of the flag is copied, not even its reference count is touched.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use crate::flag::{Attributes as _, CompiledFlag, ErrorCode, Lookup, NoFlags, Reason, Revision, Value, ValueType, Variant};
use crate::replica::View;
use crate::telemetry::evaluation::Outcome;
use crate::wire::evaluation::{Answer, BatchAnswer, BatchQuestion, Context, EncodedValue, Question, Selector, encode_value};

use super::pod::{Desk, Pod};

/// What gRPC clients take by default; a batch that is larger has to be narrowed.
const MAX_BATCH_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// What one flag is asked.
#[derive(Clone, Copy)]
struct Asked<'q, 'c> {
    flag_key: &'q str,
    context: &'q Context<'c>,
    default_value: Option<&'q [u8]>,
    wanted: Option<ValueType>,
    age_ms: u64,
}

impl Desk {
    /// Answers one question and counts it.
    pub(super) fn answer(&self, question: &Question<'_>, mut take: impl FnMut(&Answer<'_>)) {
        let Question { flag_key, context, default_value, wanted } = question;
        let asked = Asked { flag_key, context, default_value: *default_value, wanted: *wanted, age_ms: self.pod.age_ms() };
        let mut count_and_take = |answer: &Answer<'_>| {
            self.count(answer);
            take(answer);
        };
        let replica = &self.pod.replica;
        let with_prerequisites = replica.with(flag_key, |held| match held {
            None => {
                asked.unknown(replica.is_usable(), &mut count_and_take);
                None
            }
            // Its prerequisites are looked up in the same map, which must not happen under the guard.
            Some(held) if held.flag.has_prerequisites() => Some((held.flag.clone(), held.revision)),
            Some(held) => {
                asked.decide(&held.flag, held.revision, &NoFlags, &mut count_and_take);
                None
            }
        });
        if let Some((flag, revision)) = with_prerequisites {
            asked.decide(&flag, revision, &replica.lookup(), &mut count_and_take);
        }
    }

    /// An `EvaluateBatchResponse` with its frame. All flags are decided in one state.
    pub(super) fn answer_batch(&self, question: &BatchQuestion<'_>) -> Result<Bytes, Status> {
        let BatchQuestion { selector, context } = question;
        let age_ms = self.pod.age_ms();
        let replica = &self.pod.replica;
        let (answer, counts) = replica.batch(|view| {
            let mut out = BatchAnswer::new(view.position());
            // Counted afterwards: this closure is run again when a change came between.
            let mut counts = Vec::new();
            for flag_key in keys_of(selector, view) {
                let flag_key = flag_key.as_ref();
                let asked = Asked { flag_key, context, default_value: None, wanted: None, age_ms };
                match view.with(flag_key, |held| held.map(|held| (held.flag.clone(), held.revision))) {
                    Some((flag, _)) if !selector.tags.iter().all(|tag| flag.has_tag(tag)) => {}
                    Some((flag, revision)) => {
                        let mut counted = None;
                        asked.decide(&flag, revision, &view.lookup(), |answer| {
                            counted = Some((answer.reason, position_of(&flag, answer.variant)));
                            out.push(answer);
                        });
                        counts.extend(counted.map(|(reason, variant)| (flag, reason, variant)));
                    }
                    None if selector.tags.is_empty() => asked.unknown(replica.is_usable(), |answer| out.push(answer)),
                    None => {}
                }
                if out.len() > MAX_BATCH_ANSWER_BYTES {
                    return Err(Status::resource_exhausted(format!(
                        "the selected flags are more than an answer can carry ({MAX_BATCH_ANSWER_BYTES} bytes): narrow the selector"
                    )));
                }
            }
            Ok((out.into_frame(), counts))
        })?;
        for (flag, reason, variant) in counts {
            self.tally.decided(flag.key(), variant.map_or("", |variant| &flag.variants()[variant].name), reason);
        }
        Ok(answer)
    }

    fn count(&self, answer: &Answer<'_>) {
        match answer.error {
            None => self.tally.decided(answer.flag_key, answer.variant, answer.reason),
            Some(code @ (ErrorCode::FlagNotFound | ErrorCode::ProviderNotReady)) => self.tally.failed("", code),
            Some(code) => self.tally.failed(answer.flag_key, code),
        }
    }

    /// For the span of a sampled call.
    pub(super) fn outcome<'a>(&'a self, question: &'a Question<'_>, answer: &Answer<'a>) -> Outcome<'a> {
        Outcome {
            flag_key: answer.flag_key,
            environment: &self.pod.environment,
            variant: Some(answer.variant).filter(|variant| !variant.is_empty()),
            reason: answer.reason,
            error: answer.error,
            revision: answer.revision,
            targeting_key: question.context.targeting_key(),
        }
    }
}

impl Pod {
    pub(super) fn age_ms(&self) -> u64 {
        u64::try_from(self.replica.age().as_millis()).unwrap_or(u64::MAX)
    }

    /// A decision for a watcher, outside of any guard; it is no evaluation that anybody asked for, and is not counted.
    pub(super) fn decide_for_watch(&self, flag: &CompiledFlag, revision: Revision, context: &Context<'_>, take: impl FnOnce(&Answer<'_>)) {
        let asked = Asked { flag_key: flag.key(), context, default_value: None, wanted: None, age_ms: self.age_ms() };
        asked.decide(flag, revision, &self.replica.lookup(), take);
    }
}

impl Asked<'_, '_> {
    fn decide(&self, flag: &CompiledFlag, revision: Revision, lookup: &dyn Lookup, take: impl FnOnce(&Answer<'_>)) {
        if let Some(wanted) = self.wanted
            && wanted != flag.kind()
        {
            let message = format!("the flag is of type {}, the caller asked for {wanted}", flag.kind());
            return take(&Answer { revision, ..self.failed(ErrorCode::TypeMismatch, &message) });
        }
        let decision = flag.decide(self.context, lookup);
        let object;
        let value = match decision.variant.map(|variant| &variant.value) {
            None => self.default_value.map(EncodedValue::Raw),
            Some(Value::Bool(value)) => Some(EncodedValue::Bool(*value)),
            Some(Value::Number(value)) => Some(EncodedValue::Number(*value)),
            Some(Value::String(value)) => Some(EncodedValue::String(value)),
            Some(value @ Value::Object(_)) => {
                object = encode_value(value);
                Some(EncodedValue::Raw(&object))
            }
        };
        take(&Answer {
            flag_key: self.flag_key,
            value,
            variant: decision.variant.map_or("", |Variant { name, .. }| name),
            reason: decision.reason,
            rule: decision.rule.unwrap_or_default(),
            bucket: decision.bucket,
            revision,
            age_ms: self.age_ms,
            error: None,
            message: if decision.key_missing { "the attribute to bucket by is absent: the baseline is served" } else { "" },
        });
    }

    fn unknown(&self, usable: bool, take: impl FnOnce(&Answer<'_>)) {
        if usable {
            let shown: String = self.flag_key.chars().take(128).collect();
            take(&self.failed(ErrorCode::FlagNotFound, &format!("there is no flag `{shown}` in this environment")));
        } else {
            take(&self.failed(ErrorCode::ProviderNotReady, "the sidecar has not received any flags yet"));
        }
    }

    fn failed<'a>(&'a self, code: ErrorCode, message: &'a str) -> Answer<'a> {
        Answer {
            flag_key: self.flag_key,
            value: self.default_value.map(EncodedValue::Raw),
            variant: "",
            reason: Reason::Error,
            rule: "",
            bucket: None,
            revision: 0,
            age_ms: self.age_ms,
            error: Some(code),
            message,
        }
    }
}

/// In order, each once.
fn keys_of(selector: &Selector<'_>, view: &View<'_>) -> Vec<Arc<str>> {
    if selector.keys.is_empty() {
        return view.keys(selector.prefix);
    }
    let mut keys: Vec<_> = selector.keys.iter().filter(|key| key.starts_with(selector.prefix)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| Arc::from(*key)).collect()
}

fn position_of(flag: &CompiledFlag, variant: &str) -> Option<usize> {
    flag.variants().iter().position(|held| held.name == variant)
}
