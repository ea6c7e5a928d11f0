//! From a question to an answer. The flag is decided under the guard of the map and the answer is taken down before the guard falls, so
//! that nothing of the flag is copied, not even its reference count is touched.

use std::borrow::Cow;

use bytes::Bytes;
use tonic::Status;

use crate::flag::{Attributes as _, CompiledFlag, Decision, ErrorCode, Lookup, Reason, Revision, Value, ValueType, Variant};
use crate::replica::{Held, Replica, View};
use crate::telemetry::evaluation::Outcome;
use crate::wire::evaluation::selection::Scope;
use crate::wire::evaluation::{Answer, BatchAnswer, BatchQuestion, Context, EncodedValue, Form, Prepared, Question, Reply, encode_value};

use super::grpc::not_ready;
use super::pod::{Desk, Pod};
use super::prepared;
use super::tally::Batch;

/// What gRPC clients take by default; a batch that is larger has to be narrowed.
pub(super) const MAX_BATCH_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// What one flag is asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'q, 'c> {
    pub(super) flag_key: &'q str,
    pub(super) context: &'q Context<'c>,
    pub(super) default_value: Option<&'q [u8]>,
    pub(super) wanted: Option<ValueType>,
    pub(super) age_ms: u64,
    /// For the time, which hardly any flag asks for.
    pub(super) replica: &'q Replica,
    pub(super) manner: Manner<'q>,
}

/// How the answer goes out, and so which part of it may be kept for the next.
#[derive(Clone, Copy)]
pub(super) enum Manner<'q> {
    /// Somebody looks into it before: it is [`Reply::Whole`].
    Whole,
    /// As a `Decision`.
    Decision,
    /// To an OpenFeature SDK: what is prepared is all of it.
    Sdk(Form, Scope<'q>),
}

impl Desk {
    /// Answers one question. `age_ms` is [`Pod::age_ms`], asked once for all that are answered together, and `counts` are theirs. `whole`:
    /// `take` wants [`Reply::Whole`].
    pub(super) fn answer(
        &self,
        question: &Question<'_>,
        age_ms: u64,
        whole: bool,
        counts: &mut Batch<'_>,
        mut take: impl FnMut(Reply<'_>),
    ) {
        let Question { flag_key, context, default_value, wanted } = question;
        let manner = if whole { Manner::Whole } else { Manner::Decision };
        let replica = &self.pod.replica;
        let asked = Asked { flag_key, context, default_value: *default_value, wanted: *wanted, age_ms, replica, manner };
        asked.answer(flag_key, counts, |_, reply| take(reply));
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
        let mut counts = self.tally.batch();
        let answer = replica.batch(|view| {
            // It is run again when a change came between.
            counts.forget();
            let asked_by_name = !selector.keys.is_empty();
            let all = if asked_by_name { Vec::new() } else { view.keys(selector.prefix) };
            let named = selector.keys.iter().copied().filter(|key| selector.prefix.is_empty() || key.starts_with(selector.prefix));
            let mut out = BatchAnswer::new(view.position(), selector.keys.len().max(all.len()));
            for flag_key in named.chain(all.iter().map(|key| &**key)) {
                let asked = Asked { flag_key, context, default_value: None, wanted: None, age_ms, replica, manner: Manner::Decision };
                let mut take = |reply: Reply<'_>| out.push(reply);
                let depends = view.with(flag_key, |held| match held {
                    Some(held) if selector.tags.iter().all(|tag| held.flag.has_tag(tag)) => {
                        if !held.flag.has_prerequisites() {
                            asked.decide(held, &mut counts, &mut take);
                        }
                        held.flag.has_prerequisites()
                    }
                    None if asked_by_name && selector.tags.is_empty() => {
                        asked.unknown(replica.is_usable(), &mut counts, &mut take);
                        false
                    }
                    Some(_) | None => false,
                });
                if depends && let Some(family) = Family::of(flag_key, view, age_ms) {
                    asked.decide_family(&family, &mut counts, &mut take);
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
        self.replica.age_ms()
    }

    /// A decision for a watcher, outside of any guard; it is no evaluation that anybody asked for, and is not counted.
    pub(super) fn decide_for_watch(&self, flag: &CompiledFlag, revision: Revision, context: &Context<'_>, take: impl FnOnce(&Answer<'_>)) {
        let (age_ms, replica) = (self.age_ms(), &self.replica);
        let asked = Asked { flag_key: flag.key(), context, default_value: None, wanted: None, age_ms, replica, manner: Manner::Whole };
        let family = if flag.has_prerequisites() { self.replica.batch(|view| Family::of(flag.key(), view, asked.age_ms)) } else { None };
        match family {
            Some(family) => asked.whole(&family.flag.flag, family.flag.objects(), family.flag.revision, &family.decision(context), take),
            None => asked.whole(flag, None, revision, &flag.decide(context, &asked), take),
        }
    }
}

/// A flag and all that it depends on, taken from one state: decided against two states, it could answer what neither of them says.
pub(super) struct Family {
    /// Its revision is the newest of all, so that the state at this revision replays what they decide together.
    pub(super) flag: Held,
    prerequisites: Vec<CompiledFlag>,
    age_ms: u64,
    unix_s: i64,
}

impl Family {
    pub(super) fn of(flag_key: &str, view: &View<'_>, age_ms: u64) -> Option<Self> {
        let flag = view.with(flag_key, |held| held.cloned())?;
        let mut family = Self { flag: flag.clone(), prerequisites: Vec::new(), age_ms, unix_s: view.unix_s() };
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

impl Family {
    fn decision(&self, context: &Context<'_>) -> Decision<'_> {
        self.flag.flag.decide(context, self)
    }
}

impl Lookup for Family {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.prerequisites.iter().find(|flag| flag.key() == key).cloned()
    }

    fn age_ms(&self) -> u64 {
        self.age_ms
    }

    fn unix_s(&self) -> i64 {
        self.unix_s
    }
}

/// Of a flag without prerequisites.
impl Lookup for Asked<'_, '_> {
    fn flag(&self, _key: &str) -> Option<CompiledFlag> {
        None
    }

    fn age_ms(&self) -> u64 {
        self.age_ms
    }

    fn unix_s(&self) -> i64 {
        self.replica.unix_s()
    }
}

impl Asked<'_, '_> {
    /// From the flag that is held at that place, see [`crate::flag::overridden`]; `take` is given it, if there is one.
    #[inline]
    pub(super) fn answer(&self, place: &str, counts: &mut Batch<'_>, mut take: impl FnMut(Option<&Held>, Reply<'_>)) {
        let replica = self.replica;
        let depends = replica.with(place, |held| match held {
            // Its prerequisites are looked up in the same map, which must not happen under the guard.
            Some(held) if held.flag.has_prerequisites() => {
                self.manner.read(held);
                true
            }
            Some(held) => {
                self.decide(held, counts, |reply| take(Some(held), reply));
                false
            }
            None => {
                self.unknown(replica.is_usable(), counts, |reply| take(None, reply));
                false
            }
        });
        if depends {
            match replica.batch(|view| Family::of(place, view, self.age_ms)) {
                Some(family) => self.decide_family(&family, counts, |reply| take(Some(&family.flag), reply)),
                None => self.unknown(true, counts, |reply| take(None, reply)),
            }
        }
    }

    /// From a flag without prerequisites.
    #[inline]
    pub(super) fn decide(&self, held: &Held, counts: &mut Batch<'_>, take: impl FnOnce(Reply<'_>)) {
        if let Some(wanted) = self.wanted_in_vain(&held.flag) {
            return self.mismatch(wanted, held, counts, take);
        }
        let decision = held.flag.decide(self.context, self);
        counts.note(|| self.seen(&held.flag, held.revision, &decision));
        if held.flag.measured().is_some() {
            counts.exposed(held, &decision, self.context.targeting_key());
        }
        // The caller's default and the words about a missing key are not the flag's own.
        if let Some(form) = self.manner.number()
            && decision.variant.is_some()
            && !decision.key_missing
            && decision.error().is_none()
        {
            let mut too_long = None;
            let prepared = counts.prepared(held, &decision, form, || {
                let mut constant = None;
                self.whole(&held.flag, held.objects(), held.revision, &decision, |answer| constant = self.manner.constant(answer, held));
                constant.and_then(|constant| if self.manner.keeps(&constant) { Some(constant) } else { too_long.replace(constant) })
            });
            let (bucket, age_ms) = (decision.bucket, self.age_ms);
            if let Some(constant) = prepared {
                return take(Reply::Prepared(Prepared { constant, bucket, age_ms }));
            }
            if let Some(constant) = too_long {
                self.whole(&held.flag, held.objects(), held.revision, &decision, |answer| counts.answered(answer));
                return take(Reply::Prepared(Prepared { constant: &constant, bucket, age_ms }));
            }
        }
        self.whole(&held.flag, held.objects(), held.revision, &decision, |answer| answered(answer, counts, take));
    }

    pub(super) fn decide_family(&self, family: &Family, counts: &mut Batch<'_>, take: impl FnOnce(Reply<'_>)) {
        let held = &family.flag;
        if let Some(wanted) = self.wanted_in_vain(&held.flag) {
            return self.mismatch(wanted, held, counts, take);
        }
        let decision = family.decision(self.context);
        counts.note(|| self.seen(&held.flag, held.revision, &decision));
        if held.flag.measured().is_some() {
            counts.exposed(held, &decision, self.context.targeting_key());
        }
        self.whole(&held.flag, held.objects(), held.revision, &decision, |answer| answered(answer, counts, take));
    }

    /// `objects`: the values of the flag's variants in the order of their names, encoded, when they are objects.
    fn whole(
        &self,
        flag: &CompiledFlag,
        objects: Option<&[Bytes]>,
        revision: Revision,
        decision: &Decision<'_>,
        take: impl FnOnce(&Answer<'_>),
    ) {
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
            error: decision.error(),
            message: match decision {
                Decision { key_missing: true, .. } => "the attribute to bucket by is absent: the baseline is served",
                Decision { is_unreadable: true, .. } => "the flag's targeting cannot be read: the log says why",
                Decision { reason: Reason::Error, variant: None, .. } => {
                    "the flag's targeting gave something else than the name of a variant"
                }
                Decision { reason: Reason::Error, .. } => {
                    "the flag's targeting takes too many steps for this context: the default is served"
                }
                _ => "",
            },
        });
    }

    fn wanted_in_vain(&self, flag: &CompiledFlag) -> Option<ValueType> {
        self.wanted.filter(|wanted| *wanted != flag.kind())
    }

    fn mismatch(&self, wanted: ValueType, held: &Held, counts: &mut Batch<'_>, take: impl FnOnce(Reply<'_>)) {
        let message = format!("the flag is of type {}, the caller asked for {wanted}", held.flag.kind());
        counts.note(|| self.seen_to_fail(ErrorCode::TypeMismatch, held.revision));
        answered(&Answer { revision: held.revision, ..self.failed(ErrorCode::TypeMismatch, &message) }, counts, take);
    }

    fn unknown(&self, usable: bool, counts: &mut Batch<'_>, take: impl FnOnce(Reply<'_>)) {
        let (code, message) = if usable {
            let shown: String = self.flag_key.chars().take(128).collect();
            (ErrorCode::FlagNotFound, Cow::Owned(format!("there is no flag `{shown}` in this environment")))
        } else {
            (ErrorCode::ProviderNotReady, Cow::Borrowed("the sidecar has not received any flags yet"))
        };
        counts.note(|| self.seen_to_fail(code, 0));
        answered(&self.failed(code, &message), counts, take);
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

impl Manner<'_> {
    /// Of each form another; `None`: nothing is kept.
    #[inline]
    fn number(self) -> Option<u8> {
        match self {
            Self::Whole => None,
            Self::Decision => Some(u8::MAX),
            Self::Sdk(form, scope) => Some(form.number(scope)),
        }
    }

    /// What is worth keeping of this answer, which is a success. Most that is too long is found so before it is written.
    fn constant(self, answer: &Answer<'_>, held: &Held) -> Option<Vec<u8>> {
        let is_short = answer.constant_len() <= self.longest();
        match self {
            Self::Whole => None,
            Self::Decision => is_short.then(|| answer.constant()),
            Self::Sdk(form, scope) => is_short.then(|| form.write(answer, held.flag.kind(), held.flagd(), scope)),
        }
    }

    fn keeps(self, constant: &[u8]) -> bool {
        constant.len() <= self.longest()
    }

    fn longest(self) -> usize {
        match self {
            Self::Whole => 0,
            Self::Decision => prepared::LONGEST,
            Self::Sdk(..) => prepared::LONGEST_FOR_SDKS,
        }
    }

    /// Before the flag is copied: the copy would read its definition by itself, and each time.
    pub(super) fn read(self, held: &Held) {
        if let Self::Sdk(..) = self {
            _ = held.flagd();
        }
    }
}

fn answered(answer: &Answer<'_>, counts: &mut Batch<'_>, take: impl FnOnce(Reply<'_>)) {
    counts.answered(answer);
    take(Reply::Whole(answer));
}
