//! The requests of the evaluation service, borrowed from their bytes.

use crate::flag::ValueType;

use super::context::{Context, Value};
use super::reader::{Key, Reader, delimited, varint};
use super::texts::Texts;
use super::{Refused, value_type};
use crate::wire::SELECTOR_NAMES;

// Of an `EvaluateRequest`; the context of an `EvaluateBatchRequest` has the same number.
const FLAG_KEY: Key = delimited(1);
const CONTEXT: Key = delimited(2);
const DEFAULT_VALUE: Key = delimited(3);
const TYPE: Key = varint(4);
// Of an `EvaluateBatchRequest`, and of its `FlagSelector`.
const SELECTOR: Key = delimited(1);
const KEYS: Key = delimited(1);
const PREFIX: Key = delimited(2);
const TAGS: Key = delimited(3);
// Of an `EvaluateStreamRequest`.
const ID: Key = varint(1);
const QUESTION: Key = delimited(2);

/// An `EvaluateRequest`.
#[derive(Debug, Clone, Default)]
pub struct Question<'a> {
    pub flag_key: &'a str,
    pub context: Context<'a>,
    /// An encoded `google.protobuf.Value` that has been checked, so that it may be handed back as it is.
    pub default_value: Option<&'a [u8]>,
    /// What the caller can use; `None`: anything.
    pub wanted: Option<ValueType>,
}

/// An `EvaluateBatchRequest`.
#[derive(Debug, Clone, Default)]
pub struct BatchQuestion<'a> {
    pub selector: Selector<'a>,
    pub context: Context<'a>,
}

/// A `FlagSelector`.
#[derive(Debug, Clone, Default)]
pub struct Selector<'a> {
    pub keys: Vec<&'a str>,
    pub prefix: &'a str,
    pub tags: Vec<&'a str>,
}

/// An `EvaluateStreamRequest`. The question is read by itself: when it cannot be taken, the id brings that to whom it concerns.
#[derive(Debug)]
pub struct StreamQuestion<'a> {
    pub id: u64,
    /// For [`Question::read`].
    pub question: &'a [u8],
}

impl<'a> Question<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let mut question = Self::default();
        question.fill(message)?;
        Ok(question)
    }

    /// Reads into a question that is empty. Where many are read, half a kilobyte of each is not moved about.
    pub fn fill(&mut self, message: &'a [u8]) -> Result<(), Refused> {
        let mut default_type = None;
        let mut context_bytes = 0;
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                FLAG_KEY => self.flag_key = reader.text()?,
                CONTEXT => {
                    let context = reader.bytes()?;
                    context_bytes += context.len();
                    self.context.merge(context, context_bytes)?;
                }
                DEFAULT_VALUE => {
                    let value = reader.bytes()?;
                    default_type = type_of(Value::read(value, 0, &mut Texts::of(value)).map_err(Refused::in_default_value)?);
                    self.default_value = Some(value);
                }
                TYPE => self.wanted = value_type(reader.varint()?),
                _ => reader.skip(key, 4)?,
            }
        }
        self.wanted = self.wanted.or(default_type);
        Ok(())
    }
}

fn type_of(value: Value<'_>) -> Option<ValueType> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some(ValueType::Bool),
        Value::Number(_) => Some(ValueType::Number),
        Value::String(_) => Some(ValueType::String),
        Value::List(_) | Value::Object(_) => Some(ValueType::Object),
    }
}

impl<'a> BatchQuestion<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let mut question = Self::default();
        let mut context_bytes = 0;
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                SELECTOR => question.selector.merge(reader.bytes()?)?,
                CONTEXT => {
                    let context = reader.bytes()?;
                    context_bytes += context.len();
                    question.context.merge(context, context_bytes)?;
                }
                _ => reader.skip(key, 2)?,
            }
        }
        Ok(question)
    }
}

impl<'a> Selector<'a> {
    fn merge(&mut self, message: &'a [u8]) -> Result<(), Refused> {
        let mut texts = Texts::of(message);
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                KEYS => self.keys.push(texts.text(reader.bytes()?)?),
                PREFIX => self.prefix = reader.text()?,
                TAGS => self.tags.push(reader.text()?),
                _ => reader.skip(key, 3)?,
            }
        }
        if self.keys.len() + self.tags.len() > SELECTOR_NAMES {
            let description = format!("has {} keys and tags, at most {SELECTOR_NAMES} are allowed", self.keys.len() + self.tags.len());
            return Err(Refused::OverLimit { field: "selector".to_owned(), description });
        }
        Ok(())
    }
}

impl<'a> StreamQuestion<'a> {
    /// # Errors
    /// Only when not even the id can be read.
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let (mut id, mut question) = (0, &[][..]);
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                ID => id = reader.varint()?,
                QUESTION => question = reader.bytes()?,
                _ => reader.skip(key, 2)?,
            }
        }
        Ok(Self { id, question })
    }
}

impl Refused {
    fn in_default_value(self) -> Self {
        match self {
            Self::OverLimit { description, .. } => Self::OverLimit { field: "default_value".to_owned(), description },
            malformed @ Self::Malformed(_) => malformed,
        }
    }
}
