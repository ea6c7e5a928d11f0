//! Who asks: a targeting key and attributes, read without owning them.

use serde_json::Value as Json;

/// One attribute, as a condition sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attribute<'a> {
    Null,
    Bool(bool),
    Number(f64),
    String(&'a str),
    /// Its elements come through [`Attributes::any_element`].
    List,
    /// Its fields come through a dotted path.
    Object,
}

/// A source of attributes: a decoded message, bytes of one, or [`Context`].
///
/// A path is the name of a top-level attribute or, when there is none of that name, names joined by dots that lead through objects.
/// `targetingKey` names the targeting key.
pub trait Attributes {
    /// `None` when absent or empty.
    fn targeting_key(&self) -> Option<&str>;

    fn attribute(&self, path: &str) -> Option<Attribute<'_>>;

    /// Whether `test` holds for any element of the list at `path`; false when there is no list there.
    fn any_element(&self, path: &str, test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool;
}

/// The name under which conditions and splits read the targeting key.
pub const TARGETING_KEY: &str = "targetingKey";

/// An owned context.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    pub targeting_key: Option<String>,
    pub attributes: serde_json::Map<String, Json>,
}

impl Context {
    pub fn new(targeting_key: impl Into<String>) -> Self {
        Self { targeting_key: Some(targeting_key.into()), attributes: serde_json::Map::new() }
    }

    pub fn with(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    fn find(&self, path: &str) -> Option<&Json> {
        if let Some(found) = self.attributes.get(path) {
            return Some(found);
        }
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(self.attributes.get(first)?, |json, name| json.get(name))
    }
}

impl Attributes for Context {
    fn targeting_key(&self) -> Option<&str> {
        self.targeting_key.as_deref().filter(|key| !key.is_empty())
    }

    fn attribute(&self, path: &str) -> Option<Attribute<'_>> {
        if path == TARGETING_KEY {
            return self.targeting_key().map(Attribute::String);
        }
        self.find(path).map(attribute_of)
    }

    fn any_element(&self, path: &str, test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool {
        match self.find(path) {
            Some(Json::Array(elements)) => elements.iter().any(|element| test(attribute_of(element))),
            _ => false,
        }
    }
}

fn attribute_of(json: &Json) -> Attribute<'_> {
    match json {
        Json::Null => Attribute::Null,
        Json::Bool(value) => Attribute::Bool(*value),
        Json::Number(value) => value.as_f64().map_or(Attribute::Null, Attribute::Number),
        Json::String(value) => Attribute::String(value),
        Json::Array(_) => Attribute::List,
        Json::Object(_) => Attribute::Object,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_literal_name_wins_over_a_path() {
        let context = Context::default().with("a.b", 1).with("a", json!({ "b": 2, "c": { "d": "x" } }));
        assert_eq!(context.attribute("a.b"), Some(Attribute::Number(1.0)));
        assert_eq!(context.attribute("a.c.d"), Some(Attribute::String("x")));
        assert_eq!(context.attribute("a.c.e"), None);
    }

    #[test]
    fn an_empty_targeting_key_is_an_absent_one() {
        assert_eq!(Context::new("").attribute(TARGETING_KEY), None);
    }
}
