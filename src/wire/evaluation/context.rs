//! A context read where it lies in the request: no map, no strings of our own, only the attributes that a rule reads are looked at.

use serde_json::Value as Json;
use smallvec::SmallVec;

use crate::flag::{Attribute, Attributes, Name, TARGETING_KEY, Tag, limits};

use super::reader::{Key, Reader, delimited, double, varint};
use super::texts::Texts;
use super::{Malformed, Refused};

/// A borrowed `yardarm.v1.Context` that is within the limits.
#[derive(Debug, Clone, Default)]
pub struct Context<'a> {
    targeting_key: &'a str,
    /// In the order of the message: of two entries with one name the later one counts, as in every protobuf map.
    attributes: SmallVec<[Named<'a>; 12]>,
}

#[derive(Debug, Clone, Copy)]
struct Named<'a> {
    tag: Tag,
    name: &'a str,
    value: Value<'a>,
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

// Of a `Context`.
const TARGETING: Key = delimited(1);
const ATTRIBUTES: Key = delimited(2);
// Of a `Struct` or a `ListValue`, and of one entry of a `Struct`.
const ELEMENT: Key = delimited(1);
const NAME: Key = delimited(1);
const VALUE: Key = delimited(2);
// Of a `Value`.
const NULL: Key = varint(1);
const NUMBER: Key = double(2);
const STRING: Key = delimited(3);
const BOOL: Key = varint(4);
const OBJECT: Key = delimited(5);
const LIST: Key = delimited(6);
/// [`STRING`], [`NUMBER`] and [`BOOL`] as the one byte that they are.
const PLAIN: [u8; 3] = [STRING as u8, NUMBER as u8, BOOL as u8];

impl<'a> Context<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Refused> {
        let mut context = Self::default();
        context.merge(message, message.len())?;
        Ok(context)
    }

    /// A context as flagd's clients send it (flagd.md 1.8): a `Struct`, in which the targeting key is an attribute among others, and absent
    /// when it is no text.
    pub fn read_struct(message: &'a [u8]) -> Result<Self, Refused> {
        let mut context = Self::default();
        context.merge_struct(message, message.len())?;
        Ok(context)
    }

    /// Reads one more occurrence of the field: protobuf says that they add up. `bytes`: of all of them so far, this one counted.
    pub(super) fn merge(&mut self, message: &'a [u8], bytes: usize) -> Result<(), Refused> {
        check_bytes(bytes)?;
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            match key {
                TARGETING => self.targeting_key = reader.text()?,
                ATTRIBUTES => self.merge_attributes(reader.bytes()?)?,
                _ => reader.skip(key, 2)?,
            }
        }
        self.check_attributes()
    }

    /// The same for a `Struct`.
    pub(super) fn merge_struct(&mut self, message: &'a [u8], bytes: usize) -> Result<(), Refused> {
        check_bytes(bytes)?;
        self.merge_attributes(message)?;
        self.targeting_key = match self.top_level(const { Tag::of(TARGETING_KEY) }, || TARGETING_KEY) {
            Some(Value::String(key)) => key,
            Some(_) | None => "",
        };
        self.check_attributes()
    }

    /// Puts attributes over those that are there. What is put is ours, and not limited by bytes.
    ///
    /// # Errors
    /// When there are too many attributes with them.
    pub fn overlaid(mut self, message: &'a [u8]) -> Result<Self, Refused> {
        if !message.is_empty() {
            self.merge_struct(message, 0)?;
        }
        Ok(self)
    }

    fn check_attributes(&self) -> Result<(), Refused> {
        if self.attributes.len() > limits::CONTEXT_ATTRIBUTES {
            let found = self.attributes.len();
            return Err(over("context.attributes", format!("has {found} attributes, at most {} are allowed", limits::CONTEXT_ATTRIBUTES)));
        }
        Ok(())
    }

    fn merge_attributes(&mut self, message: &'a [u8]) -> Result<(), Refused> {
        let texts = &mut Texts::of(message);
        let mut fields = Reader::new(message);
        while !fields.is_empty() {
            if let Some(attribute) = plain_attribute(&mut fields, texts) {
                self.attributes.push(attribute);
                continue;
            }
            let Some(key) = fields.key()? else { break };
            if key == ELEMENT {
                let (name, value) = entry(fields.bytes()?, texts)?;
                let value = value.map_or(Ok(Value::Null), |value| Value::read(value, 0, texts)).map_err(|refused| refused.within(name))?;
                self.attributes.push(Named { tag: Tag::of(name), name, value });
            } else {
                fields.skip(key, 1)?;
            }
        }
        Ok(())
    }

    fn find(&self, tag: Tag, path: &str) -> Option<Value<'a>> {
        self.top_level(tag, || path).or_else(|| self.nested(path))
    }

    #[cold]
    fn nested(&self, path: &str) -> Option<Value<'a>> {
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(self.top_level(Tag::of(first), || first)?, |value, name| value.member(name))
    }

    #[inline(always)]
    fn top_level<'n>(&self, tag: Tag, name: impl Fn() -> &'n str) -> Option<Value<'a>> {
        let is_it = |held: &&Named<'_>| held.tag == tag && (tag.is_whole() || held.name == name());
        self.attributes.iter().rev().find(is_it).map(|held| held.value)
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
        self.find(Tag::of(path), path).map(Value::attribute)
    }

    #[inline(always)]
    fn named(&self, name: Name<'_>) -> Option<Attribute<'_>> {
        self.top_level(name.tag(), || name.as_str()).or_else(|| self.nested(name.as_str())).map(Value::attribute)
    }

    fn any_element(&self, path: &str, test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool {
        let Some(Value::List(list)) = self.find(Tag::of(path), path) else { return false };
        elements(list).any(|element| element.and_then(Value::again).is_ok_and(|element| test(element.attribute())))
    }

    fn json(&self, path: &str) -> Option<Json> {
        match path {
            // Of two with one name the later one stays.
            "" => Some(Json::Object(self.attributes.iter().map(|held| (held.name.to_owned(), held.value.json())).collect())),
            path => self.find(Tag::of(path), path).map(Value::json),
        }
    }
}

impl<'a> Value<'a> {
    /// Reads a value and checks all that it holds. `level` counts the lists and objects around it.
    pub(super) fn read(message: &'a [u8], level: usize, texts: &mut Texts<'a>) -> Result<Self, Refused> {
        let value = Self::shallow(message, texts)?;
        match value {
            Self::List(_) | Self::Object(_) if level >= limits::CONTEXT_NESTING => {
                return Err(over("", format!("is nested deeper than {} levels", limits::CONTEXT_NESTING)));
            }
            Self::List(list) => {
                for element in elements(list) {
                    Self::read(element?, level + 1, texts)?;
                }
            }
            Self::Object(object) => {
                for field in elements(object) {
                    if let (_, Some(value)) = entry(field?, texts)? {
                        Self::read(value, level + 1, texts)?;
                    }
                }
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => {}
        }
        Ok(value)
    }

    /// One that has been read before, out of what holds it.
    fn again(message: &'a [u8]) -> Result<Self, Malformed> {
        Self::shallow(message, &mut Texts::of(message))
    }

    fn shallow(message: &'a [u8], texts: &mut Texts<'a>) -> Result<Self, Malformed> {
        let mut value = Self::Null;
        let mut reader = Reader::new(message);
        while let Some(key) = reader.key()? {
            value = match key {
                NULL => reader.varint().map(|_| Self::Null)?,
                NUMBER => Self::Number(reader.double()?),
                STRING => Self::String(texts.text(reader.bytes()?)?),
                BOOL => Self::Bool(reader.varint()? != 0),
                OBJECT => Self::Object(reader.bytes()?),
                LIST => Self::List(reader.bytes()?),
                _ => reader.skip(key, 6).map(|()| value)?,
            };
        }
        Ok(value)
    }

    fn member(self, name: &str) -> Option<Self> {
        let Self::Object(object) = self else { return None };
        let is_it = |field: &'a [u8]| entry(field, &mut Texts::of(field)).ok().filter(|(held, _)| *held == name);
        // Of two with one name the later one counts.
        let (_, value) = elements(object).filter_map(|field| is_it(field.ok()?)).last()?;
        Some(value.map_or(Self::Null, |value| Self::again(value).unwrap_or(Self::Null)))
    }

    /// Taken apart, as deep as a context may be.
    fn json(self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => value.into(),
            Self::Number(value) => value.into(),
            Self::String(value) => value.into(),
            Self::List(list) => elements(list).map(|element| element.and_then(Self::again).map_or(Json::Null, Self::json)).collect(),
            Self::Object(object) => {
                let field = |field: &'a [u8]| {
                    let (name, value) = entry(field, &mut Texts::of(field)).ok()?;
                    Some((name.to_owned(), value.map_or(Json::Null, |value| Self::again(value).map_or(Json::Null, Self::json))))
                };
                Json::Object(elements(object).filter_map(|element| field(element.ok()?)).collect())
            }
        }
    }

    #[inline(always)]
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

/// An attribute as everybody writes it: a short name, then a short text, a number or a truth value, and nothing else. `None`, with nothing
/// taken from `fields`: it has to be looked at more closely.
#[inline]
fn plain_attribute<'a>(fields: &mut Reader<'a>, texts: &mut Texts<'a>) -> Option<Named<'a>> {
    let mut rest = *fields;
    let bytes = rest.short(ELEMENT)?;
    let mut entry = Reader::new(bytes);
    let name = entry.short(NAME)?;
    let value = entry.short(VALUE).filter(|_| entry.is_empty())?;
    let [string, number, bool] = PLAIN;
    let value = match value {
        [key, length @ 0..=0x7f, text @ ..] if *key == string && text.len() == usize::from(*length) => {
            Value::String(texts.text(text).ok()?)
        }
        [key, bytes @ ..] if *key == number => Value::Number(f64::from_le_bytes(bytes.try_into().ok()?)),
        [key, value @ 0..=1] if *key == bool => Value::Bool(*value == 1),
        _ => return None,
    };
    let name = texts.text(name).ok()?;
    let tag = bytes[1..].first_chunk().map_or_else(|| Tag::of(name), |counted| Tag::of_counted(*counted));
    *fields = rest;
    Some(Named { tag, name, value })
}

/// Name and encoded value of one entry of a `Struct`.
fn entry<'a>(message: &'a [u8], texts: &mut Texts<'a>) -> Result<(&'a str, Option<&'a [u8]>), Malformed> {
    let (mut name, mut value) = ("", None);
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        match key {
            NAME => name = texts.text(reader.bytes()?)?,
            VALUE => value = Some(reader.bytes()?),
            _ => reader.skip(key, 2)?,
        }
    }
    Ok((name, value))
}

/// The elements of a `ListValue`, or the entries of a `Struct`. Nothing comes after an error.
fn elements(message: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut reader = Reader::new(message);
    let mut next = move || {
        loop {
            match reader.key()? {
                None => return Ok(None),
                Some(ELEMENT) => return reader.bytes().map(Some),
                Some(key) => reader.skip(key, 1)?,
            }
        }
    };
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken {
            return None;
        }
        let element = next().transpose();
        broken = matches!(element, Some(Err(_)));
        element
    })
}

fn check_bytes(bytes: usize) -> Result<(), Refused> {
    if bytes > limits::CONTEXT_BYTES {
        return Err(over("context", format!("has {bytes} bytes, at most {} are allowed", limits::CONTEXT_BYTES)));
    }
    Ok(())
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
