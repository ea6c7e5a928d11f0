//! YAML 1.2 (core schema) to [`Node`].

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::Number;

use super::lines::line;
use super::node::Node;

/// As deep as serde_json reads.
const DEEPEST: usize = 127;
/// What aliases may add to a document, in values as [`size`] counts them: nine aliases of nine aliases of … would fill the memory.
const ALIASED: usize = 100_000;
/// What anchors may be put on, in values: each is kept a second time, and anchors within anchors once more for each around them.
const ANCHORED: usize = 1_000_000;
/// Bytes of text that count as one more value.
const TEXT: usize = 32;

/// Why a text is no YAML that we read: what was found, what was expected, and the line.
pub(super) struct NotYaml {
    pub(super) line: Option<u32>,
    pub(super) found: String,
    pub(super) expected: &'static str,
}

/// One document; an empty text is null.
pub(super) fn parse(text: &str) -> Result<Node<'_>, NotYaml> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), anchored: 0, aliased: 0 };
    let mut root = None;
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => return Ok(root.unwrap_or(Node::Null)),
            _ if root.is_some() => return Err(refused(span, "a second YAML document", "one document in a text")),
            event => root = Some(builder.node(event, span, 0)?),
        }
    }
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    anchored: usize,
    aliased: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), NotYaml> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(not_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node<'t>, NotYaml> {
        if depth > DEEPEST {
            return Err(refused(span, "more than 127 levels", "a document that is less deep"));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(text, style, tag.as_deref(), span)?),
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, Node::List(list))
            }
            Event::MappingStart(anchor, _) => {
                let mut map = Vec::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (Event::Scalar(key, ..), span) if &*key == "<<" => {
                            return Err(refused(span, "a merge key `<<`", "every key written out: YAML 1.2 has no merge keys"));
                        }
                        (Event::Scalar(key, ..), _) => key,
                        (_, span) => return Err(refused(span, "a key that is not text", "text as the key")),
                    };
                    let (event, span) = self.next()?;
                    map.push((key, self.node(event, span, depth + 1)?));
                }
                (anchor, Node::Map(map))
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(refused(span, "an unfinished document", "a value")),
        };
        if anchor > 0 {
            self.anchored += size(&node);
            if self.anchored > ANCHORED {
                return Err(refused(span, "anchors on more than 1,000,000 values", "anchors on what aliases stand for"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node<'t>, NotYaml> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(refused(span, "an alias within what it stands for", "an alias of something that is complete"));
        };
        self.aliased += size(node);
        if self.aliased > ALIASED {
            return Err(refused(span, "aliases that stand for more than 100,000 values", "a document that is written out"));
        }
        Ok(node.clone())
    }
}

/// What a copy takes, in values. A long text counts as several.
fn size(node: &Node<'_>) -> usize {
    1 + match node {
        Node::List(list) => list.iter().map(size).sum(),
        Node::Map(map) => map.iter().map(|(key, value)| key.len() / TEXT + size(value)).sum(),
        Node::String(text) => text.len() / TEXT,
        Node::Null | Node::Bool(_) | Node::Number(_) => 0,
    }
}

/// The core schema: what is quoted is text, whatever it looks like; `yes`, `on` and `2026-11-21` are text too.
fn scalar<'t>(text: Cow<'t, str>, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Node<'t>, NotYaml> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => return Ok(Node::String(text)),
        Some(tag) => return Err(refused(span, format!("the tag {tag}"), "a value without a tag")),
        None if style != ScalarStyle::Plain => return Ok(Node::String(text)),
        None => {}
    }
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Node::Null),
        "true" | "True" | "TRUE" => return Ok(Node::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Node::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN" | ".NAN" => {
            return Err(refused(span, text, "a finite number"));
        }
        _ => {}
    }
    match number(&text) {
        Some(Some(number)) => Ok(Node::Number(number)),
        Some(None) => Err(refused(span, text, "a number that fits into 64 bits")),
        None => Ok(Node::String(text)),
    }
}

/// `None`: no number. `Some(None)`: a number that is too large.
fn number(text: &str) -> Option<Option<Number>> {
    if let Some(digits) = text.strip_prefix("0x") {
        return digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok().map(Number::from));
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')).then(|| u64::from_str_radix(digits, 8).ok().map(Number::from));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let starts_as_number = unsigned.bytes().next().is_some_and(|first| first.is_ascii_digit())
        || unsigned.strip_prefix('.').is_some_and(|rest| rest.bytes().next().is_some_and(|first| first.is_ascii_digit()));
    if !starts_as_number || !unsigned.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let whole = text.strip_prefix('+').unwrap_or(text);
        let number = whole.parse::<u64>().map(Number::from).or_else(|_| whole.parse::<i64>().map(Number::from));
        return Some(number.ok());
    }
    text.parse::<f64>().ok().map(Number::from_f64)
}

fn refused(span: Span, found: impl Into<String>, expected: &'static str) -> NotYaml {
    NotYaml { line: Some(line(span)), found: found.into(), expected }
}

fn not_yaml(error: &ScanError) -> NotYaml {
    let line = u32::try_from(error.marker().line()).ok();
    NotYaml { line, found: format!("text that is no YAML ({})", error.info()), expected: "YAML or JSON" }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::*;

    fn json(text: &str) -> Node<'_> {
        Node::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn plain_scalars_are_read_by_the_core_schema() {
        for (yaml, expected) in [
            ("1", "1"),
            ("-3", "-3"),
            ("+3", "3"),
            ("0x1f", "31"),
            ("0o17", "15"),
            ("017", "17"),
            ("1.5", "1.5"),
            (".5", "0.5"),
            ("1e3", "1000.0"),
            ("true", "true"),
            ("~", "null"),
            ("yes", "\"yes\""),
            ("on", "\"on\""),
            ("2.2.1", "\"2.2.1\""),
            ("2026-11-21", "\"2026-11-21\""),
            ("12.5%", "\"12.5%\""),
            ("'1'", "\"1\""),
            ("!!str 1", "\"1\""),
        ] {
            let Ok(node) = parse(yaml) else { panic!("{yaml} is refused") };
            assert_eq!(node, json(expected), "{yaml}");
        }
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused() {
        for yaml in [".inf", ".nan", "!thing 1", "99999999999999999999", "a: {<<: {b: 1}}", "? [a]\n: 1", "--- 1\n--- 2", "a: *b", "[1"] {
            assert!(parse(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn an_alias_stands_for_its_anchor() {
        assert_eq!(parse("a: &x [1, 2]\nb: *x").ok(), Some(json(r#"{"a": [1, 2], "b": [1, 2]}"#)));
    }

    #[test]
    fn aliases_of_aliases_cannot_fill_the_memory() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let inner = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn aliases_of_a_long_text_cannot_fill_the_memory() {
        let text = format!("a: &a \"{}\"\nb: [{}]\n", "x\\n".repeat(10_000), "*a, ".repeat(10_000));
        let counted = measure(|| assert!(parse(&text).is_err()));
        assert!(counted.bytes_max < 64 << 20, "{} bytes for {} of text", counted.bytes_max, text.len());
    }

    #[test]
    fn anchors_within_anchors_cannot_fill_the_memory() {
        for inner in ["x, ".repeat(50_000), format!("\"{}\"", "x\\n".repeat(1_000_000))] {
            let text: String = (1..=100).map(|number| format!("&{number} [")).collect();
            let text = format!("a: {text}{inner}{}", "]".repeat(100));
            let counted = measure(|| assert!(parse(&text).is_err()));
            assert!(counted.bytes_max < 200 << 20, "{} bytes for {} of text", counted.bytes_max, text.len());
        }
    }

    #[test]
    fn an_anchor_on_each_of_many_flags_is_no_attack() {
        let text: String =
            (0..20_000).map(|number| format!("f{number}: &f{number} {{ variants: {{ on: true, off: false }} }}\n")).collect();
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn a_text_of_brackets_is_refused_without_harm() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"- ".repeat(100_000)).is_err());
    }
}
