//! Which flags a client of flagd's asks for (flagd.md 1.7): all, those of a set, or those of a source.

use serde_json::{Map, Value as Json};

use super::flagd::Definition;

/// Of a selector: the path of a file, or the name of a set.
const SELECTOR_BYTES: usize = 4096;

/// What `Flagd-Selector` says, and in a request for a sync its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    #[default]
    All,
    /// By `metadata.flagSetId`. Empty: flags that are in no set.
    Set(String),
    Source(String),
}

/// A selection where it is made. A flag that says no set, or no source, is of the environment that is served.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'s> {
    pub selection: &'s Selection,
    /// Empty where none has a name.
    pub environment: &'s str,
}

impl Selection {
    /// `flagSetId=x`, `source=x`, or `x` for the source; nothing is all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(selector: &str) -> Result<Self, String> {
        let selector = selector.trim();
        if selector.len() > SELECTOR_BYTES {
            return Err(format!("the selector has {} bytes, at most {SELECTOR_BYTES} are taken", selector.len()));
        }
        match selector.split_once('=') {
            None if selector.is_empty() => Ok(Self::All),
            None => Ok(Self::Source(selector.to_owned())),
            Some(("flagSetId", set)) => Ok(Self::Set(set.to_owned())),
            Some(("source", source)) => Ok(Self::Source(source.to_owned())),
            Some((name, _)) => Err(format!("the selector asks by `{name}`, expected `flagSetId` or `source`")),
        }
    }

    #[inline]
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    pub fn takes(&self, definition: &Definition, environment: &str) -> bool {
        match self {
            Self::All => true,
            Self::Set(set) => definition.set().unwrap_or(environment) == set,
            Self::Source(source) => definition.source().unwrap_or(environment) == source,
        }
    }
}

impl Scope<'_> {
    pub fn takes(self, definition: &Definition) -> bool {
        self.selection.takes(definition, self.environment)
    }

    /// What is said of everything that is selected (flagd.md 1.6). A set without a name is not told.
    pub fn metadata(self) -> Map<String, Json> {
        let set = match self.selection {
            Selection::Set(set) => set,
            Selection::All | Selection::Source(_) => self.environment,
        };
        let mut metadata = Map::new();
        if !set.is_empty() {
            metadata.insert("flagSetId".to_owned(), set.into());
        }
        if let Selection::Source(source) = self.selection {
            metadata.insert("source".to_owned(), source.as_str().into());
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flag(json: &str) -> Definition {
        Definition::of(json.as_bytes())
    }

    #[test]
    fn a_selector_is_a_set_or_a_source_and_nothing_else() {
        for (selector, expected) in [
            ("", Selection::All),
            (" ", Selection::All),
            ("flagSetId=", Selection::Set(String::new())),
            ("flagSetId=a=b", Selection::Set("a=b".to_owned())),
            ("source=./a.json", Selection::Source("./a.json".to_owned())),
            ("./a.json", Selection::Source("./a.json".to_owned())),
        ] {
            assert_eq!(Selection::parse(selector), Ok(expected), "{selector}");
        }
        assert!(Selection::parse("environment=prod").is_err());
        assert!(Selection::parse(&"x".repeat(SELECTOR_BYTES)).is_ok() && Selection::parse(&"x".repeat(SELECTOR_BYTES + 1)).is_err());
    }

    #[test]
    fn a_flag_that_says_no_set_and_no_source_is_of_the_environment() {
        let (plain, told) = (flag("{}"), flag(r#"{"metadata":{"flagSetId":"pay"},"source":"a.json"}"#));
        for (selector, takes_plain, takes_told) in [
            ("", true, true),
            ("prod", true, false),
            ("flagSetId=prod", true, false),
            ("flagSetId=pay", false, true),
            ("a.json", false, true),
            ("flagSetId=", false, false),
            ("flagSetId=other", false, false),
        ] {
            let selection = Selection::parse(selector).unwrap();
            let taken = (selection.takes(&plain, "prod"), selection.takes(&told, "prod"));
            assert_eq!(taken, (takes_plain, takes_told), "{selector}");
        }
        assert!(Selection::parse("flagSetId=").unwrap().takes(&plain, ""));
    }

    #[test]
    fn the_metadata_say_what_was_selected_and_no_empty_set() {
        for (selector, environment, expected) in [
            ("", "prod", json!({ "flagSetId": "prod" })),
            ("", "", json!({})),
            ("flagSetId=", "", json!({})),
            ("flagSetId=pay", "", json!({ "flagSetId": "pay" })),
            ("source=a", "", json!({ "source": "a" })),
        ] {
            let selection = Selection::parse(selector).unwrap();
            assert_eq!(Json::from(Scope { selection: &selection, environment }.metadata()), expected, "{selector}");
        }
    }
}
