//! A document as flagd takes one (flagd.md 2.1). It warns of what is not in its schema and serves the rest, so that a source may have keys
//! that nobody knows, and one flag that cannot be read does not take the others with it. Metadata of the set become those of each flag. Keys
//! are flagd's too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::super::document::{Flag, FractionalVersion, Metadata, Segment};
use super::super::limits;
use super::super::logic::{Program, UNREADABLE, write_out};
use super::super::naming::Naming;
use super::super::node::Node;
use super::super::problem::{Path, Problems};
use super::super::template::{Library, Templates};
use super::{DOCUMENT, FLAG, Fields, flag, is_key, segment, template, tree, value};

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub struct Tolerated {
    /// In the order of the document. A flag that cannot be read is there by its key alone.
    pub flags: Vec<(String, Option<Flag>)>,
    /// Keys of those whose `targeting` alone cannot be read: what there is of them answers PARSE_ERROR.
    pub unreadable: BTreeSet<String>,
    pub segments: BTreeMap<String, Option<Segment>>,
    pub problems: Problems,
}

/// What a flag that does not say it has instead.
#[derive(Debug, Clone, Copy, Default)]
pub struct Assumed {
    pub fractional_version: FractionalVersion,
}

impl Tolerated {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// When nothing of it can be read, as flagd then keeps what it had.
    pub fn parse(text: &str, assumed: Assumed) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        if text.len() > limits::DOCUMENT_BYTES {
            problems.found(Path::ROOT, format!("{} bytes", text.len()), format!("at most {} bytes", limits::DOCUMENT_BYTES));
            return Err(problems);
        }
        let root = tree(text, &mut problems);
        match root.map(known) {
            Some(root @ Node::Map(_)) => read(&root, assumed, problems, text),
            Some(node) => {
                problems.found(Path::ROOT, node.to_string(), "a document, as an object with `flags`");
                Err(problems)
            }
            None => Err(problems.located_in(text)),
        }
    }
}

fn read(root: &Node<'_>, assumed: Assumed, mut problems: Problems, text: &str) -> Result<Tolerated, Problems> {
    let path = Path::ROOT;
    let Some(fields) = Fields::of(root, "a document", DOCUMENT, path, &mut problems) else { return Err(problems) };
    let Some(listed) = fields.get("flags").and_then(listed) else {
        problems.found(path.key("flags"), fields.get("flags").map_or_else(|| "nothing".to_owned(), Node::to_string), "flags by key");
        return Err(problems.located_in(text));
    };
    let templates = template::templates(&fields, path, &mut problems);
    let evaluators = evaluators(&fields, &mut problems);
    let of_set = scalars(fields.get("metadata"), path.key("metadata"), &mut problems);
    let mut reader = Reader { assumed, templates: &templates, evaluators: &evaluators, of_set: &of_set };
    let mut read = Tolerated { segments: segments(&fields, &mut problems), ..Tolerated::default() };
    let place = path.key("flags");
    for (key, node) in listed {
        let mut own = Problems::default();
        let (mut of_targeting, place) = (Problems::default(), place.key(&key));
        let flag = reader.flag(&key, node, place, &mut own);
        let mut flag = flag.filter(|_| own.is_empty());
        if let Some(flag) = &mut flag
            && !reader.targeting(flag, place.key("targeting"), &mut of_targeting)
        {
            read.unreadable.insert(key.clone());
        }
        problems.extend(own);
        problems.extend(of_targeting);
        read.flags.push((key, flag));
    }
    read.problems = problems.located_in(text);
    Ok(read)
}

/// flagd takes a list of flags that say their keys, too.
fn listed<'t>(flags: &Node<'t>) -> Option<Vec<(String, Node<'t>)>> {
    match flags {
        Node::Map(entries) => Some(entries.iter().map(|(key, node)| (key.clone().into_owned(), node.clone())).collect()),
        Node::List(elements) => Some(elements.iter().map(|node| (key_of(node), node.clone())).collect()),
        _ => None,
    }
}

/// Empty, and refused by that, when it has none.
fn key_of(node: &Node<'_>) -> String {
    let Node::Map(entries) = node else { return String::new() };
    let key = entries.iter().find(|(name, _)| name == "key").map(|(_, key)| key);
    if let Some(Node::String(key)) = key { key.clone().into_owned() } else { String::new() }
}

struct Reader<'r> {
    assumed: Assumed,
    templates: &'r Templates,
    evaluators: &'r Map<String, Json>,
    of_set: &'r Metadata,
}

impl Reader<'_> {
    fn flag(&mut self, key: &str, node: Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Flag> {
        is_key(Naming::Flagds, key, path, problems);
        let Node::Map(mut entries) = node else {
            problems.found(path, node.to_string(), "a flag, as an object");
            return None;
        };
        entries.retain(|(name, node)| FLAG.contains(&&**name) && !is_no_default(name, node));
        let says_version = entries.iter().any(|(name, node)| name == "fractionalVersion" && *node != Node::Null);
        let metadata = entries.iter().position(|(name, _)| name == "metadata").map(|index| entries.remove(index).1);
        let own = scalars(metadata.as_ref(), path.key("metadata"), &mut Problems::default());
        let mut flag = flag(Naming::Flagds, &Node::Map(entries), &Library::of(self.templates), path, problems)?;
        flag.metadata = self.of_set.clone().into_iter().chain(own).collect();
        if !says_version {
            flag.fractional_version = self.assumed.fractional_version;
        }
        Some(flag)
    }

    /// Whether the rule of the flag can be read, if it has one. One that cannot gives way to what says so.
    fn targeting(&self, flag: &mut Flag, path: Path<'_>, problems: &mut Problems) -> bool {
        let Some(targeting) = &mut flag.targeting else { return true };
        write_out(targeting, self.evaluators, path, problems);
        Program::compile(targeting, flag.fractional_version, path, problems);
        if problems.is_empty() {
            return true;
        }
        let first = problems.iter().next().map(ToString::to_string).unwrap_or_default();
        *targeting = json!({ UNREADABLE: first });
        false
    }
}

/// How flagd's own sync says that there is none.
fn is_no_default(name: &str, node: &Node<'_>) -> bool {
    name == "defaultVariant" && matches!(node, Node::String(variant) if variant.is_empty())
}

/// Without the keys of a document that nobody knows.
fn known(root: Node<'_>) -> Node<'_> {
    match root {
        Node::Map(entries) => Node::Map(entries.into_iter().filter(|(name, _)| DOCUMENT.contains(&&**name)).collect()),
        node => node,
    }
}

fn evaluators(fields: &Fields<'_, '_>, problems: &mut Problems) -> Map<String, Json> {
    let read = |_: &str, node: &Node<'_>, path: Path<'_>, problems: &mut Problems| value::logic(node, path, problems);
    fields.map("$evaluators", "evaluators by name", Path::ROOT, problems, read).into_iter().collect()
}

fn segments(fields: &Fields<'_, '_>, problems: &mut Problems) -> BTreeMap<String, Option<Segment>> {
    fields.map("segments", "segments by key", Path::ROOT, problems, |key, node, path, problems| {
        let mut own = Problems::default();
        // flagd has no segments, so that nobody has any of another name.
        is_key(Naming::Ours, key, path, &mut own);
        let segment = segment(node, path, &mut own).filter(|_| own.is_empty());
        problems.extend(own);
        Some(segment)
    })
}

/// What is no text, number or boolean is left out: no client could be told it.
fn scalars(node: Option<&Node<'_>>, path: Path<'_>, problems: &mut Problems) -> Metadata {
    let Some(Node::Map(entries)) = node else { return Metadata::new() };
    let read = entries.iter().filter_map(|(name, node)| Some((name.clone().into_owned(), value::scalar(node, path.key(name), problems)?)));
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::document::Scalar;
    use super::*;

    fn parse(text: &str) -> Tolerated {
        Tolerated::parse(text, Assumed::default()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn one_flag_that_cannot_be_read_leaves_the_others() {
        let read = parse(
            r#"{ "flags": { "good": { "state": "ENABLED", "variants": { "a": 1 }, "defaultVariant": "a" }, "bad": { "variants": { "a": 1, "b": "x" } } } }"#,
        );
        let read_ones: Vec<_> = read.flags.iter().map(|(key, flag)| (key.as_str(), flag.is_some())).collect();
        assert_eq!(read_ones, [("good", true), ("bad", false)]);
        assert!(read.problems.iter().all(|problem| problem.path.starts_with("flags.bad")), "{}", read.problems);
        assert!(!read.problems.is_empty());
    }

    #[test]
    fn keys_and_variants_have_any_name_that_flagd_takes() {
        let (long, too_long) = ("k".repeat(limits::FLAGD_NAME_BYTES), "k".repeat(limits::FLAGD_NAME_BYTES + 1));
        let flag = json!({ "variants": { "the \"1st\"\n": 1, long.as_str(): 2 }, "defaultVariant": long });
        let good = ["a b", "a/b", "a%2Fb", "ümläut", "\"quoted\"", long.as_str()];
        let bad = ["", "two\nlines", "nul\0", too_long.as_str()];
        let flags: Map<_, _> = good.iter().chain(&bad).map(|key| ((*key).to_owned(), flag.clone())).collect();
        let read = parse(&json!({ "flags": flags }).to_string());
        for (key, flag) in &read.flags {
            assert_eq!(flag.is_some(), good.contains(&key.as_str()), "{key:?}: {}", read.problems);
        }
        assert_eq!(read.problems.len(), bad.len(), "{}", read.problems);
        let expected = format!("expected a key of 1 to {} bytes without control characters", limits::FLAGD_NAME_BYTES);
        assert!(read.problems.iter().all(|problem| problem.to_string().contains(&expected)), "{}", read.problems);
        // What is read is written and read again, by the same rule and by no other.
        let json = read.flags.iter().find_map(|(_, flag)| flag.as_ref()).unwrap().to_canonical_json();
        assert!(Flag::from_json_named(Naming::Flagds, json.as_ref()).is_ok());
        assert!(Flag::from_json(json.as_ref()).is_err());
    }

    #[test]
    fn a_flag_whose_rule_cannot_be_read_is_there_and_says_so() {
        let read = parse(
            r#"{"flags":{"lost":{"variants":{"a":1},"defaultVariant":"a","targeting":{"$ref":"nowhere"}},
                "unknown":{"variants":{"a":1},"targeting":{"if":[{"matches":["x"]},"a"]}},"good":{"variants":{"a":1}}}}"#,
        );
        assert_eq!(read.unreadable.iter().collect::<Vec<_>>(), ["lost", "unknown"]);
        assert_eq!(read.problems.len(), 2, "{}", read.problems);
        assert!(read.flags.iter().all(|(_, flag)| flag.is_some()));
        let rule = read.flags[0].1.as_ref().unwrap().targeting.as_ref().unwrap();
        assert!(rule[UNREADABLE].as_str().unwrap().contains("nowhere"), "{rule}");
    }

    #[test]
    fn what_flagds_own_sync_sends_is_taken() {
        let text = r#"{"flags":{"a":{"state":"ENABLED","defaultVariant":"","variants":{"on":true},"source":"x.json","selector":"y","metadata":{"n":null,"t":"x"}}},"more":1}"#;
        let read = parse(text);
        let (_, Some(flag)) = &read.flags[0] else { panic!("{}", read.problems) };
        assert_eq!((flag.default_variant.as_deref(), flag.source.as_deref()), (None, Some("x.json")));
        assert_eq!(flag.metadata.keys().collect::<Vec<_>>(), ["t"]);
    }

    #[test]
    fn a_list_of_flags_is_flags_by_key_and_the_metadata_of_the_set_are_those_of_each() {
        let read = parse(
            "metadata: { flagSetId: pay, owner: set }\nflags:\n  - { key: a, variants: { x: 1 }, metadata: { owner: flag } }\n  - { variants: { x: 1 } }\n",
        );
        let (key, Some(flag)) = &read.flags[0] else { panic!("{}", read.problems) };
        let expected = [("flagSetId", "pay"), ("owner", "flag")].map(|(name, value)| (name.to_owned(), Scalar::String(value.to_owned())));
        assert_eq!((key.as_str(), &flag.metadata), ("a", &BTreeMap::from(expected)));
        assert!(read.flags[1].1.is_none(), "a flag without a key");
    }

    #[test]
    fn references_are_written_out_and_the_version_is_what_is_assumed() {
        let text = r#"{"$evaluators":{"staff":{"in":["@x",{"var":"email"}]}},"flags":{
            "a":{"variants":{"on":true,"off":false},"targeting":{"if":[{"$ref":"staff"},"on","off"]}},
            "b":{"variants":{"on":true},"fractionalVersion":3}}}"#;
        let read = Tolerated::parse(text, Assumed { fractional_version: FractionalVersion::V2 }).unwrap();
        let (_, Some(a)) = &read.flags[0] else { panic!("{}", read.problems) };
        let (_, Some(b)) = &read.flags[1] else { panic!("{}", read.problems) };
        assert!(!a.targeting.as_ref().unwrap().to_string().contains("$ref"));
        assert_eq!((a.fractional_version, b.fractional_version), (FractionalVersion::V2, FractionalVersion::V3));
    }

    #[test]
    fn what_is_no_document_is_refused_whole() {
        for text in ["", "{", "[]", "7", "{}", r#"{"flags":7}"#, "flags: [a: b"] {
            assert!(Tolerated::parse(text, Assumed::default()).is_err(), "{text}");
        }
    }
}
