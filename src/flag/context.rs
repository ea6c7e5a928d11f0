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

    /// The same, for who keeps a [`Tag`] of each name.
    fn named(&self, name: Name<'_>) -> Option<Attribute<'_>> {
        self.attribute(name.as_str())
    }

    /// Whether `test` holds for any element of the list at `path`; false when there is no list there.
    fn any_element(&self, path: &str, test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool;

    /// What is at `path`, as JSON: for `targeting` that goes through a list or an object. The empty path: every attribute, as an object.
    fn json(&self, path: &str) -> Option<Json>;
}

/// The name under which conditions and splits read the targeting key.
pub const TARGETING_KEY: &str = "targetingKey";

/// Length and first seven bytes of a name: most names differ in these, and the shorter ones are nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(u64);

/// The name of an attribute, or a path to one, as a compiled flag has it.
#[derive(Debug, Clone, Copy)]
pub struct Name<'n> {
    pub(super) tag: Tag,
    pub(super) start: u32,
    /// Other texts stand around it; it is cut out only where the tag was not enough.
    pub(super) texts: &'n str,
}

impl Tag {
    #[inline]
    pub const fn of(name: &str) -> Self {
        let name = name.as_bytes();
        // Names in flags are far shorter than 255 bytes; of longer ones in a context the tags are alike, and the names are compared.
        let mut bytes = [if name.len() < 255 { name.len() as u8 } else { 255 }, 0, 0, 0, 0, 0, 0, 0];
        let mut at = 0;
        while at < name.len() && at < 7 {
            bytes[at + 1] = name[at];
            at += 1;
        }
        Self(u64::from_le_bytes(bytes))
    }

    /// The same, out of eight bytes that begin with the length of the name (below 128) and go on with the name, as protobuf writes it.
    #[inline]
    pub const fn of_counted(bytes: [u8; 8]) -> Self {
        let behind = 7_u32.saturating_sub(bytes[0] as u32);
        Self(u64::from_le_bytes(bytes) << (8 * behind) >> (8 * behind))
    }

    /// Names with this tag are the same name.
    #[inline]
    pub fn is_whole(self) -> bool {
        self.0 & 0xff < 8
    }

    fn name_len(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

impl<'n> Name<'n> {
    #[inline]
    pub fn tag(self) -> Tag {
        self.tag
    }

    #[inline]
    pub fn as_str(self) -> &'n str {
        &self.texts[self.start as usize..self.start as usize + self.tag.name_len()]
    }
}

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

    fn json(&self, path: &str) -> Option<Json> {
        match path {
            "" => Some(Json::Object(self.attributes.clone())),
            path => self.find(path).cloned(),
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
    fn a_tag_is_the_same_out_of_what_protobuf_writes_and_tells_short_names_apart() {
        for name in ["", "a", "plan", "country", "appVersion", "grüße", &"x".repeat(127)] {
            let mut bytes = [&[name.len() as u8], name.as_bytes(), b"\x12\x07\x1a\x05other"].concat();
            bytes.truncate(8);
            assert_eq!(Tag::of_counted(bytes.try_into().unwrap()), Tag::of(name), "{name}");
            assert_eq!(Tag::of(name).is_whole(), name.len() < 8);
        }
        assert_eq!(Tag::of(&"x".repeat(300)), Tag::of(&"x".repeat(301)));
        assert_ne!(Tag::of("ab"), Tag::of("ab\0"));
    }

    #[test]
    fn an_empty_targeting_key_is_an_absent_one() {
        assert_eq!(Context::new("").attribute(TARGETING_KEY), None);
    }
}
