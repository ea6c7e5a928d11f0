//! A context read where it lies in the request: no map, no strings of our own, only the attributes that a rule reads are looked at.

use smallvec::SmallVec;

use crate::flag::{Attribute, Attributes, TARGETING_KEY, limits};

use super::reader::{Field, Reader};
use super::{Malformed, Refused};

/// A borrowed `yardarm.v1.Context` that is within the limits.
#[derive(Debug, Clone, Default)]
pub struct Context<'a> {
    targeting_key: &'a str,
    /// In the order of the message: of two entries with one name the later one counts, as in every protobuf map.
    attributes: SmallVec<[(&'a str, Value<'a>); 12]>,
}

/// A borrowed `google.protobuf.Value`; lists and objects are known to be well-formed but are not taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(f64),
    String(&'a str),
    /// A `ListValue`.
    List(&'a [u8]),
    /// A `Struct`.
    Object(&'a [u8]),
}

/// First bytes of the fields of a `Value`, and of an entry of a `Struct`: number and wire type.
const NUMBER: u8 = 2 << 3 | 1;
const STRING: u8 = 3 << 3 | 2;
const BOOL: u8 = 4 << 3;
const NAME: u8 = 1 << 3 | 2;
const VALUE: u8 = 2 << 3 | 2;

impl<'a> Context<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let mut context = Self::default();
        context.merge(message, message.len())?;
        Ok(context)
    }

    /// Reads one more occurrence of the field: protobuf says that they add up. `bytes`: of all of them so far, this one counted.
    pub(super) fn merge(&mut self, message: &'a [u8], bytes: usize) -> Result<(), Refused> {
        if bytes > limits::CONTEXT_BYTES {
            return Err(over("context", format!("has {bytes} bytes, at most {} are allowed", limits::CONTEXT_BYTES)));
        }
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => self.targeting_key = field.str()?,
                2 => self.merge_attributes(field.bytes()?)?,
                _ => {}
            }
        }
        if self.attributes.len() > limits::CONTEXT_ATTRIBUTES {
            let found = self.attributes.len();
            return Err(over("context.attributes", format!("has {found} attributes, at most {} are allowed", limits::CONTEXT_ATTRIBUTES)));
        }
        Ok(())
    }

    fn merge_attributes(&mut self, message: &'a [u8]) -> Result<(), Refused> {
        let mut fields = Reader::new(message);
        while let Some((number, field)) = fields.next()? {
            if number == 1 {
                let (name, value) = entry(field.bytes()?)?;
                let value = value.map_or(Ok(Value::Null), |value| Value::read(value, 0)).map_err(|refused| refused.within(name))?;
                self.attributes.push((name, value));
            }
        }
        Ok(())
    }

    fn find(&self, path: &str) -> Option<Value<'a>> {
        if let Some(found) = self.top_level(path) {
            return Some(found);
        }
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(self.top_level(first)?, |value, name| value.member(name))
    }

    fn top_level(&self, name: &str) -> Option<Value<'a>> {
        // Most names differ in their length or their first byte, which is cheaper to see than to call a comparison.
        let is_it = |held: &str| held.len() == name.len() && held.as_bytes().first() == name.as_bytes().first() && held == name;
        self.attributes.iter().rev().find(|(held, _)| is_it(held)).map(|(_, value)| *value)
    }
}

impl Attributes for Context<'_> {
    fn targeting_key(&self) -> Option<&str> {
        Some(self.targeting_key).filter(|key| !key.is_empty())
    }

    fn attribute(&self, path: &str) -> Option<Attribute<'_>> {
        if path == TARGETING_KEY {
            return self.targeting_key().map(Attribute::String);
        }
        self.find(path).map(Value::attribute)
    }

    fn any_element(&self, path: &str, test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool {
        let Some(Value::List(list)) = self.find(path) else { return false };
        let mut elements = Reader::new(list);
        while let Ok(Some((number, field))) = elements.next() {
            if number == 1 && field.bytes().and_then(Value::shallow).is_ok_and(|element| test(element.attribute())) {
                return true;
            }
        }
        false
    }
}

impl<'a> Value<'a> {
    /// Reads a value and checks all that it holds. `level` counts the lists and objects around it.
    pub(super) fn read(message: &'a [u8], level: usize) -> Result<Self, Refused> {
        let value = Self::shallow(message)?;
        match value {
            Self::List(_) | Self::Object(_) if level >= limits::CONTEXT_NESTING => {
                return Err(over("", format!("is nested deeper than {} levels", limits::CONTEXT_NESTING)));
            }
            Self::List(list) => {
                let mut elements = Reader::new(list);
                while let Some((number, field)) = elements.next()? {
                    if number == 1 {
                        Self::read(field.bytes()?, level + 1)?;
                    }
                }
            }
            Self::Object(object) => {
                let mut fields = Reader::new(object);
                while let Some((number, field)) = fields.next()? {
                    if number == 1
                        && let (_, Some(value)) = entry(field.bytes()?)?
                    {
                        Self::read(value, level + 1)?;
                    }
                }
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => {}
        }
        Ok(value)
    }

    /// Nearly every value is one field of a known shape, and is read without a loop.
    #[inline]
    fn plain(message: &'a [u8]) -> Option<Result<Self, Malformed>> {
        match message {
            [STRING, length @ 0..=0x7f, text @ ..] if text.len() == usize::from(*length) => {
                Some(Field::Bytes(text).str().map(Self::String))
            }
            [NUMBER, number @ ..] => Some(Ok(Self::Number(f64::from_le_bytes(number.try_into().ok()?)))),
            [BOOL, value @ 0..=1] => Some(Ok(Self::Bool(*value == 1))),
            _ => None,
        }
    }

    fn shallow(message: &'a [u8]) -> Result<Self, Malformed> {
        if let Some(plain) = Self::plain(message) {
            return plain;
        }
        let mut value = Self::Null;
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            value = match number {
                1 => {
                    field.varint()?;
                    Self::Null
                }
                2 => Self::Number(field.double()?),
                3 => Self::String(field.str()?),
                4 => Self::Bool(field.varint()? != 0),
                5 => Self::Object(field.bytes()?),
                6 => Self::List(field.bytes()?),
                _ => value,
            };
        }
        Ok(value)
    }

    fn member(self, name: &str) -> Option<Self> {
        let Self::Object(object) = self else { return None };
        let mut found = None;
        let mut fields = Reader::new(object);
        while let Ok(Some((number, field))) = fields.next() {
            if number == 1
                && let Ok((held, value)) = field.bytes().and_then(entry)
                && held == name
            {
                found = Some(value.map_or(Self::Null, |value| Self::shallow(value).unwrap_or(Self::Null)));
            }
        }
        found
    }

    fn attribute(self) -> Attribute<'a> {
        match self {
            Self::Null => Attribute::Null,
            Self::Bool(value) => Attribute::Bool(value),
            Self::Number(value) => Attribute::Number(value),
            Self::String(value) => Attribute::String(value),
            Self::List(_) => Attribute::List,
            Self::Object(_) => Attribute::Object,
        }
    }
}

/// Name and encoded value of one entry of a `Struct`.
fn entry(message: &[u8]) -> Result<(&str, Option<&[u8]>), Malformed> {
    // As everybody writes it: a short name, then a short value, and nothing else.
    if let [NAME, length @ 0..=0x7f, rest @ ..] = message
        && let Some((name, [VALUE, length @ 0..=0x7f, value @ ..])) = rest.split_at_checked(usize::from(*length))
        && value.len() == usize::from(*length)
    {
        return Ok((Field::Bytes(name).str()?, Some(value)));
    }
    let (mut name, mut value) = ("", None);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match (number, field) {
            (1, Field::Bytes(_)) => name = field.str()?,
            (2, Field::Bytes(bytes)) => value = Some(bytes),
            (1 | 2, _) => return Err(Malformed("an entry of an object is neither name nor value")),
            _ => {}
        }
    }
    Ok((name, value))
}

fn over(field: impl Into<String>, description: String) -> Refused {
    Refused::OverLimit { field: field.into(), description }
}

impl Refused {
    /// Names the attribute in which a limit was exceeded.
    fn within(self, name: &str) -> Self {
        match self {
            Self::OverLimit { description, .. } => {
                let shown: String = name.chars().take(128).collect();
                Self::OverLimit { field: format!("context.attributes.{shown}"), description }
            }
            malformed @ Self::Malformed(_) => malformed,
        }
    }
}
