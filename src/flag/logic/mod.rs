//! flagd's `targeting`: JsonLogic (jsonlogic.com/operations.html) with flagd's own operators, compiled with its flag and then only run.
//!
//! ```text
//! JSON -> references (where the document is read) -> compile -> program -> evaluate (value; lists, fractional -> cbor, murmur)
//! ```
//! - A rule is refused when it is compiled: an unknown operator, a reference that leads nowhere, and whatever is a bomb: too deep, too many
//!   operations, operators over lists three deep.
//! - What depends on the context cannot be refused; it is paid for in steps. Whoever runs out of them gets no result.
//! - No JSON is interpreted for a question, and of the context only what the rule reads is looked at. An answer allocates nothing unless the
//!   rule reads a list or an object, puts a text or a list together to keep it, or an operator that takes all of its operands has more than four.

mod cbor;
mod compile;
mod evaluate;
mod fractional;
mod lists;
mod loaded;
mod murmur;
mod program;
mod references;
#[cfg(test)]
mod tests;
mod value;

use std::cell::Cell;
use std::fmt;

use serde_json::Value as Json;

use super::context::{Attribute, Attributes, Name};
use super::decide::Lookup;
use super::decision::Variant;
use super::document::FractionalVersion;
use super::limits;
use super::problem::{Path as Place, Problems};
use compile::Compiler;
use evaluate::Run;
pub(super) use evaluate::Spent;
pub(super) use fractional::{hash_of_joined, hash_of_keys};
use loaded::Loaded;
use program::{Node, Path};
pub(super) use references::write_out;
use value::{Buffer, Value};

/// The targeting of a flag, ready to run.
#[derive(Debug)]
pub(super) struct Program {
    /// `None`: see [`UNREADABLE`].
    root: Option<Node>,
    fractional: FractionalVersion,
    reads: Box<[Path]>,
    reads_everything: bool,
    reads_time: bool,
}

/// Stands for a rule that cannot be read, with what is wrong with it, where a document is served all the same (`yardarm start`): flagd answers
/// each question to such a flag with PARSE_ERROR (flagd.md 2.2), and so do the engines that are sent it, which know no such operator.
pub(super) const UNREADABLE: &str = "yardarm.unreadable";

/// What targeting gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Null: the default.
    Nothing,
    /// By its index.
    Variant(u16),
    /// Something else than the name of a variant.
    NoVariant,
    /// The rule could not be read.
    Unreadable,
}

impl Program {
    pub(super) fn compile(targeting: &Json, fractional: FractionalVersion, place: Place<'_>, problems: &mut Problems) -> Self {
        if !matches!(targeting, Json::Object(_) | Json::Null) {
            problems.found(place, "something else than an object", "JsonLogic, as an object");
        }
        let mut compiler = Compiler::new(problems);
        let is_unreadable = targeting.as_object().is_some_and(|rule| rule.len() == 1 && rule.contains_key(UNREADABLE));
        let root = (!is_unreadable).then(|| compiler.node(targeting, 1, place));
        let Compiler { reads, reads_everything, reads_time, .. } = compiler;
        Self { root, fractional, reads: reads.into(), reads_everything, reads_time }
    }

    /// False when everybody gets the same at all times.
    pub(super) fn reads_context(&self) -> bool {
        self.root.is_none() || self.reads_everything || self.reads_time || !self.reads.is_empty()
    }

    /// The variant whose name is the result, `variants` being sorted by name: text as it is, `true`, `false` and numbers as JSON writes them
    /// (flagd.md 2.2).
    pub(super) fn variant<A: Attributes + ?Sized>(
        &self,
        flag_key: &str,
        variants: &[Variant],
        context: &A,
        flags: &dyn Lookup,
    ) -> Result<Found, Spent> {
        self.run(flag_key, context, flags, |result| {
            let Some(result) = result else { return Ok(Found::Unreadable) };
            let mut text = Buffer::default();
            let name = match &result? {
                Value::Null => return Ok(Found::Nothing),
                Value::List(_) | Value::Object(_) => return Ok(Found::NoVariant),
                // No JSON, so no name either.
                Value::Number(number) if !number.is_finite() => return Ok(Found::NoVariant),
                value => {
                    text.push(value);
                    text.as_str()
                }
            };
            let index = variants.binary_search_by(|variant| variant.name.as_str().cmp(name)).ok();
            Ok(index.and_then(|index| u16::try_from(index).ok()).map_or(Found::NoVariant, Found::Variant))
        })
    }

    /// The result in words: `"beta"`, `null`, `[1, 2]`.
    pub(super) fn result_in_words<A: Attributes + ?Sized>(&self, flag_key: &str, context: &A, flags: &dyn Lookup) -> Result<String, Spent> {
        self.run(flag_key, context, flags, |result| {
            result.map_or_else(|| Ok("nothing, for it cannot be read".to_owned()), |result| result.map(|value| value.to_string()))
        })
    }

    /// Names of the attributes that it reads, as far as the rule spells them out.
    pub(super) fn reads(&self) -> impl Iterator<Item = Name<'_>> {
        self.reads.iter().map(Path::name)
    }

    fn run<A: Attributes + ?Sized, T>(
        &self,
        flag_key: &str,
        context: &A,
        flags: &dyn Lookup,
        take: impl FnOnce(Option<Result<Value<'_>, Spent>>) -> T,
    ) -> T {
        let Some(root) = &self.root else { return take(None) };
        let (context, loaded) = (Lent(context), Loaded::default());
        let steps = Cell::new(limits::TARGETING_STEPS);
        let run = Run { flag_key, context: &context, flags, fractional: self.fractional, loaded: &loaded, steps };
        take(Some(run.value(root, None)))
    }
}

/// Attributes behind a pointer of one kind, so that the evaluation is there once and not for every kind of context.
struct Lent<'a, A: ?Sized>(&'a A);

impl<A: Attributes + ?Sized> Attributes for Lent<'_, A> {
    fn targeting_key(&self) -> Option<&str> {
        self.0.targeting_key()
    }

    fn attribute(&self, path: &str) -> Option<Attribute<'_>> {
        self.0.attribute(path)
    }

    fn named(&self, name: Name<'_>) -> Option<Attribute<'_>> {
        self.0.named(name)
    }

    fn any_element(&self, path: &str, test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool {
        self.0.any_element(path, test)
    }

    fn json(&self, path: &str) -> Option<Json> {
        self.0.json(path)
    }
}

/// For explanations.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(text) => f.write_str(&super::node::quoted(text.as_str())),
            Self::List(elements) => {
                const SHOWN: usize = 5;
                let shown: Vec<_> = elements.iter().take(SHOWN).map(|element| element.to_string()).collect();
                match elements.len() - shown.len() {
                    0 => write!(f, "[{}]", shown.join(", ")),
                    more => write!(f, "[{} and {more} more]", shown.join(", ")),
                }
            }
            Self::Object(fields) => write!(f, "an object of {}", fields.len()),
        }
    }
}
