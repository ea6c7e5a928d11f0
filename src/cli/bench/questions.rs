//! The messages that the benchmarks ask, and what a right answer looks like.

use std::rc::Rc;

use anyhow::ensure;
use prost::Message as _;

use super::flags;
use super::http2::Question;
use super::load::{self, Traffic};
use crate::flag::Context;
use crate::wire::v1::{
    self, EvaluateBatchRequest, EvaluateBatchResponse, EvaluateRequest, EvaluateResponse, EvaluateStreamResponse, Reason,
};

/// Different questions that a run asks in turn.
const QUESTIONS: usize = 1024;
/// Flags of one batch.
pub const BATCH: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Method {
    Unary,
    /// 50 flags at once
    Batch,
    /// One bidirectional stream a connection
    Stream,
}

impl Method {
    pub const ALL: [Self; 3] = [Self::Unary, Self::Batch, Self::Stream];

    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Batch => "batch of 50",
            Self::Stream => "stream",
        }
    }

    pub fn question(self) -> Question {
        Question::Call(match self {
            Self::Unary => "/yardarm.v1.Evaluation/Evaluate",
            Self::Batch => "/yardarm.v1.Evaluation/EvaluateBatch",
            Self::Stream => "/yardarm.v1.Evaluation/EvaluateStream",
        })
    }

    /// Questions about `flags` flags (a batch: [`BATCH`] or more), spread over all of them and over as many users.
    pub fn traffic(self, flags: usize) -> Traffic {
        // A step that is prime to any count that people would choose walks over all flags and not over the first ones.
        let flag = |number: usize| number * 7919 % flags;
        match self {
            Self::Unary => {
                let messages = (0..QUESTIONS).map(|number| request(flag(number), number).encode_to_vec());
                Traffic::Calls { messages: messages.collect(), check: check_unary }
            }
            Self::Batch => {
                let messages = (0..QUESTIONS).map(|number| {
                    let keys = (0..BATCH).map(|at| flags::key((flag(number) + at) % flags)).collect();
                    let selector = v1::FlagSelector { keys, ..Default::default() };
                    EvaluateBatchRequest { selector: Some(selector), context: Some(context(number)) }.encode_to_vec()
                });
                Traffic::Calls { messages: messages.collect(), check: check_batch }
            }
            Self::Stream => {
                // Everything of EvaluateStreamRequest but its id: field 2.
                let messages: Rc<[Vec<u8>]> = (0..QUESTIONS)
                    .map(|number| {
                        let mut message = Vec::new();
                        prost::encoding::message::encode(2, &request(flag(number), number), &mut message);
                        message
                    })
                    .collect();
                Traffic::Stream { messages, check: check_stream }
            }
        }
    }
}

/// Questions of the body of a stream.
const STREAMED: usize = 1_000;

impl Method {
    /// The body of one call: the first message that [`Method::traffic`] asks, of a stream the first thousand.
    pub fn body(self, flags: usize) -> Vec<u8> {
        match self.traffic(flags) {
            Traffic::Calls { messages, .. } => load::framed(&messages[0]),
            Traffic::Stream { messages, .. } => {
                let mut body = Vec::new();
                messages.iter().zip(1..).take(STREAMED).for_each(|(message, id)| load::numbered(&mut body, id, message));
                body
            }
            Traffic::Hello => Vec::new(),
        }
    }
}

/// One user's question about one flag.
pub fn request(flag: usize, user: usize) -> EvaluateRequest {
    EvaluateRequest { flag_key: flags::key(flag), context: Some(context(user)), default_value: None, r#type: v1::ValueType::Bool.into() }
}

fn context(user: usize) -> v1::Context {
    let Context { targeting_key, attributes } = flags::context(user);
    let fields = attributes.into_iter().map(|(name, value)| (name, scalar(&value))).collect();
    v1::Context { targeting_key: targeting_key.unwrap_or_default(), attributes: Some(prost_types::Struct { fields }) }
}

/// The attributes of [`flags::context`] are text and numbers.
fn scalar(json: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        other => other.as_f64().map_or(Kind::NullValue(0), Kind::NumberValue),
    };
    prost_types::Value { kind: Some(kind) }
}

pub fn check_unary(answer: &[u8]) -> anyhow::Result<()> {
    check_decision(EvaluateResponse::decode(answer)?.decision)
}

fn check_batch(answer: &[u8]) -> anyhow::Result<()> {
    let decisions = EvaluateBatchResponse::decode(answer)?.decisions;
    ensure!(!decisions.is_empty(), "a batch has no decision in it");
    decisions.into_iter().map(Some).try_for_each(check_decision)
}

fn check_stream(answer: &[u8]) -> anyhow::Result<()> {
    match EvaluateStreamResponse::decode(answer)?.result {
        Some(v1::evaluate_stream_response::Result::Decision(decision)) => check_decision(Some(decision)),
        other => anyhow::bail!("the stream answered {other:?}"),
    }
}

/// Every realistic question ends in the split of a flag that exists.
pub fn check_decision(decision: Option<v1::Decision>) -> anyhow::Result<()> {
    let is_split = decision.as_ref().is_some_and(|decision| decision.reason == i32::from(Reason::Split) && decision.value.is_some());
    ensure!(is_split, "a decision of the split was expected, found {decision:?}");
    Ok(())
}
