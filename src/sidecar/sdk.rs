//! What OpenFeature's SDKs are answered, whatever protocol they speak: decided and counted as every answer, and kept as it went out.

use tonic::Status;

use crate::flag::{ErrorCode, ValueType, overridden};
use crate::replica::Held;
use crate::wire::evaluation::flagd::Definition;
use crate::wire::evaluation::{Answer, Context, Form, Prepared, Question, Reply};

use super::decide::{Asked, Family, Manner};
use super::flagd::Asking;
use super::grpc::not_ready;
use super::pod::Desk;

/// Of an answer in JSON that has every flag: 1.6 KiB for each of 10,000, where one with a short value takes 150 bytes. A client of HTTP has
/// no limit of its own, as those of gRPC have with 4 MiB.
pub(super) const MAX_JSON_BYTES: usize = 16 * 1024 * 1024;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said<'a> {
    /// As [`Form::write`] wrote it the first time; a success.
    Written(&'a [u8]),
    Answer(&'a Answer<'a>, Of<'a>),
}

/// The flag that the answer is of. Nothing is said of one that is not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) kind: ValueType,
    pub(super) definition: &'a Definition,
}

impl Desk {
    /// Answers one question; it counts as any other does. `form`: `None` when somebody looks into the answer. `None` only if nothing was
    /// answered, which is a bug.
    pub(super) fn answer_sdk<R>(
        &self,
        question: &Question<'_>,
        asking: &Asking,
        form: Option<Form>,
        mut say: impl FnMut(Said<'_>) -> R,
    ) -> Option<R> {
        let Question { flag_key, context, default_value, wanted } = question;
        // Before the flag is decided: under the guard of the map nothing else may be looked up.
        let place = self.pod.place(flag_key, asking.scope(self));
        let mut counts = self.tally.batch();
        if asking.is_inspection {
            counts.mute();
        }
        let manner = form.map_or(Manner::Whole, |form| Manner::Sdk(form, asking.scope(self)));
        let (age_ms, replica) = (self.pod.age_ms(), &self.pod.replica);
        let asked = Asked { flag_key, context, default_value: *default_value, wanted: *wanted, age_ms, replica, manner };
        let nobody = Definition::default();
        let mut said = None;
        asked.answer(&place, &mut counts, |held, reply| {
            let of = || held.map_or(Of { kind: ValueType::Bool, definition: &nobody }, Of::held);
            said = Some(match reply {
                Reply::Prepared(Prepared { constant, .. }) => say(Said::Written(constant)),
                Reply::Whole(answer) if self.pod.refused(flag_key, answer.error, asking) => {
                    let message = "the flag's definition cannot be used";
                    say(Said::Answer(&Answer { error: Some(ErrorCode::ParseError), message, ..*answer }, of()))
                }
                Reply::Whole(answer) => say(Said::Answer(answer, of())),
            });
        });
        counts.count();
        said
    }

    /// Every flag that is asked for, decided in one state and given to `take`. When a change came between, what it took is thrown away and
    /// taken again; when `take` refuses, nothing is counted.
    pub(super) fn answer_all<T>(
        &self,
        context: &Context<'_>,
        asking: &Asking,
        form: Form,
        begin: impl Fn() -> T,
        mut take: impl FnMut(&mut T, &str, Said<'_>) -> Result<(), Status>,
    ) -> Result<T, Status> {
        let replica = &self.pod.replica;
        if !replica.is_usable() {
            // An empty answer would say that there are no flags.
            return Err(not_ready());
        }
        let age_ms = self.pod.age_ms();
        let mut counts = self.tally.batch();
        if asking.is_inspection {
            counts.mute();
        }
        let scope = asking.scope(self);
        let taken = replica.batch(|view| {
            counts.forget();
            let mut all = begin();
            for place in view.selected(scope) {
                let flag_key = overridden::key(&place);
                let manner = Manner::Sdk(form, scope);
                let asked = Asked { flag_key, context, default_value: None, wanted: None, age_ms, replica, manner };
                let mut went = Ok(());
                let mut take = |held: &Held, reply: Reply<'_>| {
                    went = match reply {
                        Reply::Prepared(Prepared { constant, .. }) => take(&mut all, flag_key, Said::Written(constant)),
                        Reply::Whole(answer) => take(&mut all, flag_key, Said::Answer(answer, Of::held(held))),
                    };
                };
                let depends = view.with(&place, |held| match held {
                    Some(held) if held.flag.has_prerequisites() => {
                        manner.read(held);
                        true
                    }
                    Some(held) => {
                        asked.decide(held, &mut counts, |reply| take(held, reply));
                        false
                    }
                    None => false,
                });
                if depends && let Some(family) = Family::of(&place, view, age_ms) {
                    asked.decide_family(&family, &mut counts, |reply| take(&family.flag, reply));
                }
                went?;
            }
            Ok::<T, Status>(all)
        })?;
        counts.count();
        Ok(taken)
    }
}

/// Asked after each flag: one is all that an answer can be over its limit, and then nothing more is written.
pub(super) fn within(most: usize, bytes: usize, last: &str) -> Result<(), Status> {
    if bytes <= most {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "the answer has {bytes} bytes up to the flag `{last}`, and at most {most} are sent: select fewer flags (header `Flagd-Selector`, \
         such as `flagSetId=NAME`), or ask for each by its key"
    )))
}

impl<'a> Of<'a> {
    fn held(held: &'a Held) -> Self {
        Self { kind: held.flag.kind(), definition: held.flagd() }
    }
}
