//! From a question to an answer. The flag is decided under the guard of the map and the answer is taken down before the guard falls, so
//! that nothing of the flag is copied, not even its reference count is touched.

use bytes::Bytes;
use tonic::Status;

use crate::flag::{Attributes as _, CompiledFlag, ErrorCode, Lookup, NoFlags, Reason, Revision, Value, ValueType, Variant};
use crate::replica::{Held, View};
use crate::telemetry::evaluation::Outcome;
use crate::wire::evaluation::{Answer, BatchAnswer, BatchQuestion, Context, EncodedValue, Question, Selector, encode_value};

use super::grpc::not_ready;
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
    /// Answers one question and counts it. `age_ms` is [`Pod::age_ms`], asked once for all that are answered together.
    pub(super) fn answer(&self, question: &Question<'_>, age_ms: u64, mut take: impl FnMut(&Answer<'_>)) {
        let Question { flag_key, context, default_value, wanted } = question;
        let asked = Asked { flag_key, context, default_value: *default_value, wanted: *wanted, age_ms };
        let mut count_and_take = |answer: &Answer<'_>| {
            self.count(answer);
            take(answer);
        };
        let replica = &self.pod.replica;
        let depends = replica.with(flag_key, |held| match held {
            None => {
                asked.unknown(replica.is_usable(), &mut count_and_take);
                false
            }
            // Its prerequisites are looked up in the same map, which must not happen under the guard.
            Some(held) if held.flag.has_prerequisites() => true,
            Some(held) => {
                asked.decide(held, &NoFlags, &mut count_and_take);
                false
            }
        });
        if depends {
            match replica.batch(|view| Family::of(flag_key, view)) {
                Some(family) => asked.decide(&family.flag, &family, &mut count_and_take),
                None => asked.unknown(true, &mut count_and_take),
            }
        }
    }

    /// An `EvaluateBatchResponse` with its frame. All flags are decided in one state.
    pub(super) fn answer_batch(&self, question: &BatchQuestion<'_>) -> Result<Bytes, Status> {
        let BatchQuestion { selector, context } = question;
        let age_ms = self.pod.age_ms();
        let replica = &self.pod.replica;
        if selector.keys.is_empty() && !replica.is_usable() {
            // An empty answer would say that there are no flags.
            return Err(not_ready());
        }
        let keys = keys_of(selector);
        let mut counts = self.tally.batch();
        let answer = replica.batch(|view| {
            // It is run again when a change came between.
            counts.forget();
            let all;
            let (keys, asked_by_name): (&mut dyn ExactSizeIterator<Item = &str>, bool) = match &keys {
                Some(keys) => (&mut keys.iter().copied(), selector.tags.is_empty()),
                None => {
                    all = view.keys(selector.prefix);
                    (&mut all.iter().map(|key| &**key), false)
                }
            };
            let mut out = BatchAnswer::new(view.position(), keys.len());
            for flag_key in keys {
                let asked = Asked { flag_key, context, default_value: None, wanted: None, age_ms };
                let mut take = |answer: &Answer<'_>| {
                    match answer.error {
                        None => counts.decided(flag_key, answer.variant, answer.reason),
                        Some(code) => counts.failed(code),
                    }
                    out.push(answer);
                };
                let depends = view.with(flag_key, |held| match held {
                    None if asked_by_name => {
                        asked.unknown(replica.is_usable(), &mut take);
                        false
                    }
                    Some(held) if selector.tags.iter().all(|tag| held.flag.has_tag(tag)) => {
                        if !held.flag.has_prerequisites() {
                            asked.decide(held, &NoFlags, &mut take);
                        }
                        held.flag.has_prerequisites()
                    }
                    Some(_) | None => false,
                });
                if depends && let Some(family) = Family::of(flag_key, view) {
                    asked.decide(&family.flag, &family, &mut take);
                }
                if out.len() > MAX_BATCH_ANSWER_BYTES {
                    return Err(Status::resource_exhausted(format!(
                        "the selected flags are more than an answer can carry ({MAX_BATCH_ANSWER_BYTES} bytes): narrow the selector"
                    )));
                }
            }
            Ok(out.into_frame())
        })?;
        counts.count();
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
        let family = if flag.has_prerequisites() { self.replica.batch(|view| Family::of(flag.key(), view)) } else { None };
        match family {
            Some(family) => asked.decide(&family.flag, &family, take),
            None => asked.decide_flag(flag, None, revision, &NoFlags, take),
        }
    }
}

/// A flag and all that it depends on, taken from one state: decided against two states, it could answer what neither of them says.
struct Family {
    /// Its revision is the newest of all, so that the state at this revision replays what they decide together.
    flag: Held,
    prerequisites: Vec<CompiledFlag>,
}

impl Family {
    fn of(flag_key: &str, view: &View<'_>) -> Option<Self> {
        let flag = view.with(flag_key, |held| held.cloned())?;
        let mut family = Self { flag: flag.clone(), prerequisites: Vec::new() };
        family.gather(&flag.flag, view);
        Some(family)
    }

    /// Each once, so that it ends even if there was a cycle.
    fn gather(&mut self, flag: &CompiledFlag, view: &View<'_>) {
        for prerequisite in flag.prerequisites() {
            let key = prerequisite.flag();
            if self.flag(key).is_none()
                && let Some((flag, revision)) = view.with(key, |held| held.map(|held| (held.flag.clone(), held.revision)))
            {
                self.flag.revision = self.flag.revision.max(revision);
                self.prerequisites.push(flag.clone());
                self.gather(&flag, view);
            }
        }
    }
}

impl Lookup for Family {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.prerequisites.iter().find(|flag| flag.key() == key).cloned()
    }
}

impl Asked<'_, '_> {
    fn decide(&self, held: &Held, lookup: &dyn Lookup, take: impl FnOnce(&Answer<'_>)) {
        self.decide_flag(&held.flag, held.objects(), held.revision, lookup, take);
    }

    /// `objects`: the values of its variants in the order of their names, encoded, when they are objects.
    fn decide_flag(
        &self,
        flag: &CompiledFlag,
        objects: Option<&[Bytes]>,
        revision: Revision,
        lookup: &dyn Lookup,
        take: impl FnOnce(&Answer<'_>),
    ) {
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
                let index = decision.variant.and_then(|served| flag.variants().iter().position(|variant| variant.name == served.name));
                object = objects.zip(index).and_then(|(objects, index)| objects.get(index).cloned()).unwrap_or_else(|| encode_value(value));
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

/// Those that were asked for by name, in order, each once; `None`: whatever is there.
fn keys_of<'q>(selector: &Selector<'q>) -> Option<Vec<&'q str>> {
    if selector.keys.is_empty() {
        return None;
    }
    let mut keys: Vec<_> = selector.keys.iter().copied().filter(|key| key.starts_with(selector.prefix)).collect();
    if !keys.is_sorted() {
        keys.sort_unstable();
    }
    keys.dedup();
    Some(keys)
}
