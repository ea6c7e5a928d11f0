//! Templates of rollouts: a plan with its metrics and guards, in which parameters are left open.
//!
//! A template is filled in where a document is read, and nowhere else: what is stored, approved and carried out is the plan itself, so that
//! a template that changes later changes no rollout that is under way. `$(name)` stands for a parameter, in a text or as the whole of it, as
//! in Kubernetes; `$$(name)` is the text `$(name)`.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::limits;
use super::node::{Node, quoted};

/// What Yardarm brings along: `deploy/templates.yaml`, a document that explains itself.
pub const TEMPLATES: &str = include_str!("../../deploy/templates.yaml");

/// Parameters that every template has: the flag says them when nobody else does.
pub(super) const BASELINE: &str = "baseline";
pub(super) const TREATMENT: &str = "treatment";

/// Templates by name, each checked for itself.
#[derive(Debug, Clone, Default)]
pub struct Templates(BTreeMap<String, Template>);

#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Each with the value that it has when none is given.
    pub(super) parameters: BTreeMap<String, Option<Node<'static>>>,
    pub(super) metrics: Option<Node<'static>>,
    pub(super) guard: Option<Node<'static>>,
    pub(super) rollout: Node<'static>,
}

/// Where templates are looked for while a document is read.
pub(super) struct Library<'l> {
    /// Those of the document and of the files that it is read with; a name of theirs hides one that Yardarm brings along.
    pub(super) own: &'l Templates,
    /// Bytes that may still be filled in: a small document must not ask for more than an environment may be.
    pub(super) left: Cell<usize>,
}

/// What is put in for the parameters of one template.
pub(super) struct Values<'v> {
    pub(super) by_name: BTreeMap<&'v str, Cow<'v, Node<'static>>>,
    pub(super) left: &'v Cell<usize>,
}

/// Why a template cannot be filled in.
pub(super) enum Unfilled {
    TooLarge,
    /// A list in the middle of a text.
    NoText(String),
}

impl Templates {
    /// Those that a document has; what is wrong with it is told by whoever reads the document itself.
    pub fn of(text: &str) -> Self {
        super::read::templates(text)
    }

    /// Takes over those of another document. Names that were there before stay what they were, and are returned.
    pub fn join(&mut self, other: Self) -> Vec<String> {
        let mut twice = Vec::new();
        for (name, template) in other.0 {
            match self.0.contains_key(&name) {
                true => twice.push(name),
                false => _ = self.0.insert(name, template),
            }
        }
        twice
    }

    pub(super) fn insert(&mut self, name: String, template: Template) {
        self.0.insert(name, template);
    }

    fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Templates> = LazyLock::new(|| Templates::of(TEMPLATES));
        &SHIPPED
    }
}

impl<'l> Library<'l> {
    pub(super) fn of(own: &'l Templates) -> Self {
        Self { own, left: Cell::new(limits::ENVIRONMENT_BYTES) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'l Template> {
        self.own.0.get(name).or_else(|| Templates::shipped().0.get(name))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'l str> {
        self.own.0.keys().chain(Templates::shipped().0.keys()).map(String::as_str)
    }
}

impl Values<'_> {
    /// The same node with every parameter filled in.
    pub(super) fn fill(&self, node: &Node<'_>) -> Result<Node<'static>, Unfilled> {
        Ok(match node {
            Node::Null => Node::Null,
            Node::Bool(value) => Node::Bool(*value),
            Node::Number(value) => Node::Number(value.clone()),
            Node::String(text) => self.fill_text(text)?,
            Node::List(elements) => Node::List(elements.iter().map(|element| self.fill(element)).collect::<Result<_, _>>()?),
            Node::Map(entries) => {
                let fill = |(key, value): &(Cow<'_, str>, Node<'_>)| {
                    let Node::String(key) = self.fill_text(key)? else { return Err(Unfilled::NoText(key.to_string())) };
                    Ok((key, self.fill(value)?))
                };
                Node::Map(entries.iter().map(fill).collect::<Result<_, _>>()?)
            }
        })
    }

    fn fill_text(&self, text: &str) -> Result<Node<'static>, Unfilled> {
        self.spend(text.len())?;
        let pieces: Vec<Piece<'_>> = pieces(text).collect();
        if let [Piece::Parameter(name)] = pieces.as_slice()
            && let Some(value) = self.by_name.get(name)
        {
            self.spend(size(value))?;
            return Ok(value.clone().into_owned());
        }
        let mut filled = String::new();
        for piece in pieces {
            let part = match piece {
                Piece::Text(part) => Cow::Borrowed(part),
                Piece::Parameter(name) => match self.by_name.get(name).map(Cow::as_ref) {
                    Some(Node::String(value)) => Cow::Borrowed(&**value),
                    Some(value @ (Node::Bool(_) | Node::Number(_))) => Cow::Owned(value.to_string()),
                    _ => return Err(Unfilled::NoText(name.to_owned())),
                },
            };
            self.spend(part.len())?;
            filled.push_str(&part);
        }
        Ok(Node::String(Cow::Owned(filled)))
    }

    fn spend(&self, bytes: usize) -> Result<(), Unfilled> {
        // What a node itself takes counts too.
        let left = self.left.get().checked_sub(bytes + size_of::<Node<'_>>());
        self.left.set(left.ok_or(Unfilled::TooLarge)?);
        Ok(())
    }
}

impl std::fmt::Display for Unfilled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => write!(f, "more than {} bytes of filled in templates in one document", limits::ENVIRONMENT_BYTES),
            Self::NoText(name) => write!(f, "parameter {} in the middle of a text, with a value that is no text", quoted(name)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Parameter(&'t str),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let next = piece(rest)?;
        let taken = match next {
            // Of `$$(` the first `$` is left out.
            Piece::Text(part) => part.len() + usize::from(rest.starts_with("$$(") && part == "$("),
            Piece::Parameter(name) => name.len() + "$()".len(),
        };
        rest = &rest[taken..];
        Some(next)
    })
}

fn piece(rest: &str) -> Option<Piece<'_>> {
    if rest.is_empty() {
        return None;
    }
    if let Some(escaped) = rest.strip_prefix('$').filter(|escaped| escaped.starts_with("$(")) {
        return Some(Piece::Text(&escaped[.."$(".len()]));
    }
    if let Some(name) = rest.strip_prefix("$(").and_then(|name| name.split_once(')')).map(|(name, _)| name).filter(|name| is_name(name)) {
        return Some(Piece::Parameter(name));
    }
    let end = rest.char_indices().skip(1).find(|(_, letter)| *letter == '$').map_or(rest.len(), |(end, _)| end);
    Some(Piece::Text(&rest[..end]))
}

/// `[A-Za-z][A-Za-z0-9_]*`, as long as a key at most.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= limits::KEY_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Names of the parameters that a node asks for.
pub(super) fn asked<'n>(node: &'n Node<'_>, out: &mut Vec<&'n str>) {
    match node {
        Node::String(text) => out.extend(parameters(text)),
        Node::List(elements) => elements.iter().for_each(|element| asked(element, out)),
        Node::Map(entries) => {
            for (key, value) in entries {
                out.extend(parameters(key));
                asked(value, out);
            }
        }
        Node::Null | Node::Bool(_) | Node::Number(_) => {}
    }
}

fn parameters(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Parameter(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// About what a node takes, in bytes.
pub(super) fn size(node: &Node<'_>) -> usize {
    let inner = match node {
        Node::Null | Node::Bool(_) | Node::Number(_) => 0,
        Node::String(text) => text.len(),
        Node::List(elements) => elements.iter().map(size).sum(),
        Node::Map(entries) => entries.iter().map(|(key, value)| key.len() + size(value)).sum(),
    };
    inner + size_of::<Node<'_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let left = Cell::new(10_000);
        let named = |name, value: Node<'static>| (name, Cow::Owned(value));
        let by_name = BTreeMap::from([
            named("a", Node::String("x".into())),
            named("n", Node::Number(5.into())),
            named("l", Node::List(vec![Node::String("y".into())])),
        ]);
        Values { by_name, left: &left }.fill_text(text).map(|node| node.to_string()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_parameter_is_filled_in_as_what_it_is_or_as_a_part_of_a_text() {
        for (text, expected) in [
            ("$(a)", "\"x\""),
            ("$(n)", "5"),
            ("$(l)", "a list of 1"),
            ("at $(n) of $(a)", "\"at 5 of x\""),
            ("$$(a)", "\"$(a)\""),
            ("$$$(a)", "\"$$(a)\""),
            ("5 $ and $(", "\"5 $ and $(\""),
            ("$(no name)", "\"$(no name)\""),
            ("ü$(a)ü", "\"üxü\""),
            ("", "\"\""),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(fill("of $(l)").unwrap_err(), "parameter \"l\" in the middle of a text, with a value that is no text");
        assert_eq!(fill("$(a)$(b)").unwrap_err(), "parameter \"b\" in the middle of a text, with a value that is no text");
    }

    #[test]
    fn what_is_filled_in_is_bounded() {
        assert!(fill(&"$(a)".repeat(2_000)).unwrap_err().starts_with("more than "));
    }
}
