//! The scenarios that flagd's own engines are held to (`tests/data/flagd`, see ORIGIN.md there), read as they are and run against `compile`
//! and `decide`.
//!
//! Rows of `fractional` that hold for one version alone are run with that version, all others with all three (nested ones with two).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use yardarm::flag::{CompiledFlag, Context, Document, FractionalVersion, Lookup, Reason, Segments, ValueType, compile};

#[test]
fn the_evaluator_suite_holds() {
    let run = run("evaluator", &["flags.json"]);
    assert_eq!((run.wrong.as_str(), run.rows), ("", 140));
}

#[test]
fn the_targeting_suite_of_the_providers_holds() {
    let flags = ["custom-ops.json", "edge-case-flags.json", "evaluator-refs.json", "zero-flags.json", "testing-flags.json"];
    let run = run("provider", &flags);
    assert_eq!((run.wrong.as_str(), run.rows), ("", 245));
}

#[derive(Default)]
struct Run {
    /// Rows, each counted once.
    rows: usize,
    wrong: String,
}

fn run(suite: &str, documents: &[&str]) -> Run {
    let directory = Path::new("tests/data/flagd").join(suite);
    let documents: Vec<_> = documents
        .iter()
        .map(|file| fs::read_to_string(directory.join(file)).unwrap())
        .map(|text| Document::parse(&text).unwrap_or_else(|problems| panic!("{problems}")))
        .collect();
    let mut features: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    features.retain(|path| path.extension().is_some_and(|extension| extension == "feature"));
    features.sort();
    let mut run = Run::default();
    for feature in features {
        for row in rows(&fs::read_to_string(&feature).unwrap()) {
            let versions: Vec<_> = FractionalVersion::ALL.into_iter().filter(|version| row.is_of(*version)).collect();
            run.rows += usize::from(!versions.is_empty());
            for version in versions {
                if let Err(wrong) = row.holds(&documents, version) {
                    _ = writeln!(run.wrong, "{}, {version:?}, {}: {wrong}", feature.display(), row.steps.join("; "));
                }
            }
        }
    }
    run
}

/// A scenario, with the values of one of its examples put in.
struct Row {
    tags: Vec<String>,
    steps: Vec<String>,
    /// Below a step: its table.
    tables: BTreeMap<usize, Vec<Vec<String>>>,
}

/// Of Gherkin what these files use.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let (mut tags, mut scenario_tags) = (Vec::new(), Vec::new());
    let (mut steps, mut tables, mut names) = (Vec::new(), BTreeMap::<usize, Vec<Vec<String>>>::new(), None::<Vec<String>>);
    let (mut in_examples, mut is_outline, mut example_tags) = (false, false, Vec::new());
    for line in text.lines().map(str::trim).chain(["Scenario: the end"]) {
        if line.starts_with('@') {
            tags.extend(line.split_whitespace().map(str::to_owned));
        } else if line.starts_with("Scenario") || line.starts_with("Background") {
            if !is_outline && !steps.is_empty() {
                rows.push(Row { tags: scenario_tags, steps: std::mem::take(&mut steps), tables: std::mem::take(&mut tables) });
            }
            (steps, tables) = (Vec::new(), BTreeMap::new());
            (scenario_tags, in_examples, is_outline) = (std::mem::take(&mut tags), false, line.starts_with("Scenario Outline"));
            // What all begin with sets up what is set up here anyway.
            is_outline |= line.starts_with("Background");
        } else if line.starts_with("Examples") {
            (in_examples, names, example_tags) = (true, None, std::mem::take(&mut tags));
        } else if line.starts_with("Feature") {
            tags.clear();
        } else if let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) {
            let cells: Vec<_> = cells.split('|').map(|cell| cell.trim().to_owned()).collect();
            match &names {
                _ if !in_examples => tables.entry(steps.len() - 1).or_default().push(cells),
                None => names = Some(cells),
                Some(names) => {
                    let filled = |step: &String| {
                        let values = names.iter().zip(&cells);
                        values.fold(step.clone(), |step, (name, value)| step.replace(&format!("<{name}>"), value))
                    };
                    let tags = [&scenario_tags[..], &example_tags[..]].concat();
                    rows.push(Row { tags, steps: steps.iter().map(filled).collect(), tables: BTreeMap::new() });
                }
            }
        } else if let Some((_, step)) = line.split_once(' ').filter(|(word, _)| matches!(*word, "Given" | "And" | "When" | "Then")) {
            steps.push(step.to_owned());
        }
    }
    rows
}

/// What came out: the value as JSON, and why.
struct Details {
    value: Json,
    reason: &'static str,
    error: &'static str,
    metadata: Json,
}

impl Row {
    fn is_of(&self, version: FractionalVersion) -> bool {
        let mut versions = self.tags.iter().filter_map(|tag| tag.strip_prefix("@fractional-v")).peekable();
        let number = version.number().to_string();
        // Nesting came with version 2, and its rows have no tag of a version.
        let is_older = version == FractionalVersion::V1 && self.tags.iter().any(|tag| tag == "@fractional-nested");
        !is_older && versions.peek().is_none() || versions.any(|tag| tag == number)
    }

    fn holds(&self, documents: &[Document], version: FractionalVersion) -> Result<(), String> {
        let (mut asked, mut context, mut details) = (None, Context::default(), None);
        for (index, step) in self.steps.iter().enumerate() {
            let quoted: Vec<&str> = step.split('"').skip(1).step_by(2).collect();
            let tail = |before: &str| step.split_once(before).and_then(|(_, tail)| tail.strip_suffix('"')).unwrap();
            if let Some((kind, _)) = step.trim_start_matches("a ").split_once("-flag with key") {
                let value = tail(if step.contains("fallback value") { "fallback value \"" } else { "default value \"" });
                asked = Some((kind.to_owned(), quoted[0].to_owned(), typed(kind, value)));
            } else if step.starts_with("a context containing a targeting key") {
                context.targeting_key = Some(tail("with value \"").to_owned());
            } else if step.starts_with("a context containing a nested property") {
                let inner: Json = [(quoted[1].to_owned(), Json::from(quoted[2]))].into_iter().collect();
                context.attributes.insert(quoted[0].to_owned(), inner);
            } else if step.starts_with("a context containing a key") {
                context.attributes.insert(quoted[0].to_owned(), typed(quoted[1], tail("with value \"")));
            } else if step == "the flag was evaluated with details" {
                let (kind, key, fallback) = asked.as_ref().unwrap();
                details = Some(evaluate(documents, version, kind, key, fallback, &context));
            } else if let Some(details) = &details {
                let kind = &asked.as_ref().unwrap().0;
                let (found, expected) = match step.split(" should ").next().unwrap() {
                    "the resolved details value" => (details.value.clone(), typed(kind, tail("should be \""))),
                    "the reason" => (details.reason.into(), quoted[0].into()),
                    "the error-code" => (details.error.into(), quoted[0].into()),
                    "the resolved metadata is empty" => (details.metadata.clone(), Json::Object(Default::default())),
                    "the resolved metadata" => {
                        let expected = self.tables[&index].iter().skip(1).map(|cells| (cells[0].clone(), typed(&cells[1], &cells[2])));
                        (details.metadata.clone(), expected.collect())
                    }
                    _ => return Err(format!("what is {step:?}?")),
                };
                if !is_equal(&found, &expected) {
                    return Err(format!("{step} but is {found} ({})", details.reason));
                }
            } else if !step.starts_with("an evaluator") {
                return Err(format!("what is {step:?}?"));
            }
        }
        Ok(())
    }
}

/// A day in 2026, between the two that the suite asks for.
struct Now;

impl Lookup for Now {
    fn flag(&self, _key: &str) -> Option<CompiledFlag> {
        None
    }

    fn unix_s(&self) -> i64 {
        1_795_251_600
    }
}

/// As flagd's API answers.
fn evaluate(documents: &[Document], version: FractionalVersion, kind: &str, key: &str, fallback: &Json, context: &Context) -> Details {
    let failed = |error| Details { value: fallback.clone(), reason: "ERROR", error, metadata: Json::Null };
    let Some(flag) = documents.iter().find_map(|document| document.flags.get(key)) else { return failed("FLAG_NOT_FOUND") };
    let mut flag = flag.clone();
    flag.fractional_version = version;
    let Ok(compiled) = compile(key, &flag, &Segments::none()) else { return failed("PARSE_ERROR") };
    let wanted = match kind {
        "Boolean" => ValueType::Bool,
        "String" => ValueType::String,
        "Integer" | "Float" => ValueType::Number,
        _ => ValueType::Object,
    };
    if compiled.kind() != wanted {
        return failed("TYPE_MISMATCH");
    }
    let decision = compiled.decide(context, &Now);
    if decision.reason == Reason::Error {
        return failed("GENERAL");
    }
    let value = decision.variant.map_or_else(|| fallback.clone(), |variant| variant.value.to_json());
    let metadata = flag.to_json().get("metadata").cloned().unwrap_or_else(|| Json::Object(Default::default()));
    Details { value, reason: decision.reason.as_str(), error: "", metadata }
}

fn typed(kind: &str, text: &str) -> Json {
    let json = || serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace("\\\"", "\"")));
    match kind {
        // With its backslashes: they are no escapes to those who run this suite.
        "String" => text.into(),
        "Integer" | "Float" => text.parse::<f64>().unwrap_or_else(|error| panic!("{text:?}: {error}")).into(),
        "Boolean" => text.parse::<bool>().unwrap_or_else(|error| panic!("{text:?}: {error}")).into(),
        _ => json().unwrap_or_else(|error| panic!("{text:?}: {error}")),
    }
}

/// `1` and `1.0` are one number.
fn is_equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_equal(value, other)))
        }
        _ => a == b,
    }
}
