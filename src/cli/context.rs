//! `--key` and `--attr`: who a decision is for.

use std::str::FromStr;

use serde_json::Value as Json;

use super::exit::Failure;
use crate::flag::Context;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Context")]
pub struct Args {
    /// The targeting key: who the decision is for
    #[arg(long = "key", value_name = "KEY")]
    targeting_key: Option<String>,
    /// An attribute: `plan=beta` is text, `seats:=5` is JSON (a number, true, null, a list, an object)
    #[arg(short, long = "attr", value_name = "NAME=TEXT | NAME:=JSON")]
    attributes: Vec<Attribute>,
}

#[derive(Debug, Clone, PartialEq)]
struct Attribute {
    name: String,
    value: Json,
}

impl Args {
    pub fn is_given(&self) -> bool {
        self.targeting_key.is_some() || !self.attributes.is_empty()
    }

    pub fn context(&self) -> Result<Context, Failure> {
        let mut context = Context { targeting_key: self.targeting_key.clone(), ..Context::default() };
        for Attribute { name, value } in &self.attributes {
            if context.attributes.insert(name.clone(), value.clone()).is_some() {
                return Err(Failure::unable(format!("--attr gives `{name}` twice; a list is written as {name}:='[\"a\", \"b\"]'")));
            }
        }
        Ok(context)
    }
}

impl FromStr for Attribute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is not an attribute; expected NAME=TEXT, as plan=beta, or NAME:=JSON, as seats:=5");
        let (name, value) = text.split_once('=').ok_or_else(expected)?;
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => (
                name,
                serde_json::from_str(value)
                    .map_err(|error| format!("the value of `{name}` is not JSON ({error}); text is written as {name}={value}"))?,
            ),
            None => (name, Json::from(value)),
        };
        if name.is_empty() {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Json {
        text.parse::<Attribute>().unwrap().value
    }

    #[test]
    fn an_equals_sign_gives_text_whatever_it_looks_like() {
        assert_eq!(read("plan=beta"), json!("beta"));
        assert_eq!(read("version=5"), json!("5"));
        assert_eq!(read("query=a=b:=c"), json!("a=b:=c"));
        assert_eq!(read("empty="), json!(""));
    }

    #[test]
    fn a_colon_before_it_gives_json() {
        assert_eq!(read("seats:=5"), json!(5));
        assert_eq!(read("tags:=[\"a\",true,null]"), json!(["a", true, null]));
        assert_eq!(read("user:={\"plan\":\"beta\"}"), json!({ "plan": "beta" }));
    }

    #[test]
    fn what_is_neither_is_refused_with_an_example() {
        for text in ["plan", "=beta", ":=5", ""] {
            assert!(text.parse::<Attribute>().is_err_and(|error| error.contains("plan=beta")), "{text}");
        }
        assert!("plan:=beta".parse::<Attribute>().is_err_and(|error| error.contains("plan=beta")));
    }

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        let attributes = ["plan=a", "plan=b"].map(|text| text.parse().unwrap()).to_vec();
        assert!(Args { targeting_key: None, attributes }.context().is_err_and(|failure| failure.message.contains("`plan` twice")));
    }
}
