//! A value as JsonLogic sees it, and what it converts to. These are the conversions of flagd's daemon, whose engine follows JavaScript; they
//! differ from those of our rules, which convert nothing, and stay within `targeting`.

use std::fmt::{self, Write as _};
use std::rc::Rc;

use serde_json::{Map, Value as Json};
use smallvec::SmallVec;

/// Cheap to clone: what is lent lies in the context or in the rule, what an operator made is shared.
#[derive(Debug, Clone)]
pub(super) enum Value<'v> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Text<'v>),
    List(List<'v>),
    Object(&'v Map<String, Json>),
}

#[derive(Debug, Clone)]
pub(super) enum Text<'v> {
    Lent(&'v str),
    Made(Rc<str>),
}

#[derive(Debug, Clone)]
pub(super) enum List<'v> {
    Lent(&'v [Json]),
    Made(Rc<[Value<'v>]>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'v> List<'v> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Lent(elements) => elements.len(),
            Self::Made(elements) => elements.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Value<'v>> {
        match self {
            Self::Lent(elements) => elements.get(index).map(Value::of),
            Self::Made(elements) => elements.get(index).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Value<'v>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'v> Value<'v> {
    pub(super) fn of(json: &'v Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(value) => value.as_f64().map_or(Self::Null, Self::Number),
            Json::String(value) => Self::Text(Text::Lent(value)),
            Json::Array(elements) => Self::List(List::Lent(elements)),
            Json::Object(fields) => Self::Object(fields),
        }
    }

    pub(super) fn lent(text: &'v str) -> Self {
        Self::Text(Text::Lent(text))
    }

    pub(super) fn made(text: &str) -> Self {
        Self::Text(Text::Made(text.into()))
    }

    pub(super) fn list(elements: impl Into<Rc<[Self]>>) -> Self {
        Self::List(List::Made(elements.into()))
    }

    /// What names joined by dots lead to, through objects by name and through lists by number. Null is nothing.
    pub(super) fn member(&self, path: &str) -> Option<Self> {
        let step = |value: Self, name: &str| match value {
            Self::Object(fields) => fields.get(name).map(Value::of),
            Self::List(elements) => index(name).and_then(|index| elements.get(index)),
            _ => None,
        };
        let found = path.split('.').filter(|name| !name.is_empty()).try_fold(self.clone(), step)?;
        found.is_there().then_some(found)
    }

    pub(super) fn is_there(&self) -> bool {
        !matches!(self, Self::Null)
    }

    /// Empty texts, lists and objects, null, false and 0 are not; every other text is, also `"0"` and `"false"`.
    pub(super) fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(value) => *value != 0.0,
            Self::Text(text) => !text.as_str().is_empty(),
            Self::List(elements) => elements.len() > 0,
            Self::Object(fields) => !fields.is_empty(),
        }
    }

    /// For sums and the like: a text that is no number is 0.
    pub(super) fn to_number(&self) -> f64 {
        match self {
            Self::Text(text) => text.as_str().parse().unwrap_or_default(),
            other => other.to_compared_number(),
        }
    }

    /// For comparisons: a text that is no number is equal to none, one of white space alone is 0, and so is null.
    pub(super) fn to_compared_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(value) => *value,
            Self::Text(text) if text.as_str().trim().is_empty() => 0.0,
            Self::Text(text) => text.as_str().parse().unwrap_or(f64::NAN),
            Self::List(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// `==`: of two texts byte by byte, else as numbers. Null is equal to null alone.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Null, _) | (_, Self::Null) => false,
            (Self::Text(a), Self::Text(b)) => a.as_str() == b.as_str(),
            (a, b) => a.to_compared_number() == b.to_compared_number(),
        }
    }

    /// `===`: of one type, and equal. Two lists, or two objects, never are.
    pub(super) fn is(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.equals(other)
    }

    pub(super) fn is_less(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.as_str() < b.as_str(),
            (a, b) => a.to_compared_number() < b.to_compared_number(),
        }
    }

    /// Bytes or elements that whoever reads all of it looks at.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Object(_) => 0,
            Self::Text(text) => text.as_str().len(),
            Self::List(elements) => elements.len(),
        }
    }
}

/// The place of an element; `1.5` is 1, as in flagd's engine.
pub(super) fn index(name: &str) -> Option<usize> {
    let index = name.parse::<f64>().ok()?.trunc();
    (0.0..f64::from(u32::MAX)).contains(&index).then_some(index as usize)
}

/// Text that is put together, without an allocation while it is short.
#[derive(Default)]
pub(super) struct Buffer(SmallVec<[u8; 128]>);

impl Buffer {
    /// The value as `cat` writes it: null is nothing, a list its elements with commas between them.
    pub(super) fn push(&mut self, value: &Value<'_>) {
        match value {
            Value::Null | Value::Object(_) => {}
            Value::Text(text) => self.0.extend_from_slice(text.as_str().as_bytes()),
            Value::Bool(value) => _ = write!(self, "{value}"),
            Value::Number(value) => _ = write!(self, "{value}"),
            Value::List(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        self.0.push(b',');
                    }
                    self.push(&element);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Only whole texts were written.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn truth_is_that_of_flagd() {
        for (value, expected) in [
            (json!(null), false),
            (json!(false), false),
            (json!(0), false),
            (json!(-1), true),
            (json!(""), false),
            (json!("0"), true),
            (json!("false"), true),
            (json!([]), false),
            (json!([0]), true),
            (json!({}), false),
            (json!({ "a": null }), true),
        ] {
            assert_eq!(Value::of(&value).is_truthy(), expected, "{value}");
        }
    }

    #[test]
    fn a_path_leads_through_objects_and_lists() {
        let json = json!({ "a": { "b": [10, { "c": "x" }] }, "n": null });
        let value = Value::of(&json);
        for (path, expected) in [("a.b.0", Some("10")), ("a.b.1.c", Some("x")), (".a.b.1.c", Some("x")), ("a.b.2", None), ("n", None)] {
            let found = value.member(path).map(|value| {
                let mut buffer = Buffer::default();
                buffer.push(&value);
                buffer.as_str().to_owned()
            });
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
