//! The requests of the evaluation service, borrowed from their bytes.

use crate::flag::ValueType;

use super::context::{Context, Value};
use super::reader::Reader;
use super::{Refused, value_type};

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

/// An `EvaluateStreamRequest`: the id comes even when the question itself cannot be taken, so that the answer finds its way.
#[derive(Debug)]
pub struct StreamQuestion<'a> {
    pub id: u64,
    pub question: Result<Question<'a>, Refused>,
}

impl<'a> Question<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let mut question = Self::default();
        let mut default_type = None;
        let mut context_bytes = 0;
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => question.flag_key = field.str()?,
                2 => {
                    let context = field.bytes()?;
                    context_bytes += context.len();
                    question.context.merge(context, context_bytes)?;
                }
                3 => {
                    let value = field.bytes()?;
                    default_type = type_of(Value::read(value, 0).map_err(Refused::in_default_value)?);
                    question.default_value = Some(value);
                }
                4 => question.wanted = value_type(field.varint()?),
                _ => {}
            }
        }
        question.wanted = question.wanted.or(default_type);
        Ok(question)
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
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => question.selector.merge(field.bytes()?)?,
                2 => {
                    let context = field.bytes()?;
                    context_bytes += context.len();
                    question.context.merge(context, context_bytes)?;
                }
                _ => {}
            }
        }
        Ok(question)
    }
}

impl<'a> Selector<'a> {
    fn merge(&mut self, message: &'a [u8]) -> Result<(), Refused> {
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => self.keys.push(field.str()?),
                2 => self.prefix = field.str()?,
                3 => self.tags.push(field.str()?),
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> StreamQuestion<'a> {
    /// # Errors
    /// Only when not even the id can be read.
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let (mut id, mut request) = (0, &[][..]);
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => id = field.varint()?,
                2 => request = field.bytes()?,
                _ => {}
            }
        }
        Ok(Self { id, question: Question::read(request) })
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
