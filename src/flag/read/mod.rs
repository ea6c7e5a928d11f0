//! Text to documents, with every problem at once.

mod condition;
mod fields;
mod metric;
mod plan;
mod template;
mod tolerant;
mod value;

use std::collections::BTreeSet;

use serde_json::Value as Json;

#[cfg(test)]
pub(super) use condition::CONDITION;
#[cfg(test)]
pub(super) use metric::{GUARD, KINDS as METRIC_KINDS, MARGIN, METRIC};
#[cfg(test)]
pub(super) use plan::{APPROVAL, CHECK, GATE, PLAN, SAMPLE_RATIO, STAGE, START};
#[cfg(test)]
pub(super) use template::{INSTANCE, PARAMETER, TEMPLATE};

use super::document::{
    Document, Flag, FlagState, FractionalVersion, Hash, Kind, Lifetime, MaxStaleness, Metadata, Prerequisite, Rule, Segment, Serve, Split,
    Target,
};
use super::limits;
use super::logic::write_out;
use super::naming::Naming;
use super::node::{Node, quoted};
use super::problem::{Path, Problems, did_you_mean};
use super::template::{Library, Templates};
use super::yaml;
use fields::{Fields, text};
pub use tolerant::{Assumed, Tolerated};

/// Keys of each kind of object; what is not named here is refused.
pub(super) const DOCUMENT: &[&str] = &["$schema", "$evaluators", "flags", "metadata", "segments", "templates"];
pub(super) const FLAG: &[&str] = &[
    "defaultSplit",
    "defaultVariant",
    "description",
    "expectedLifetime",
    "fractionalVersion",
    "guard",
    "killVariant",
    "kind",
    "maxStaleness",
    "metadata",
    "metrics",
    "offVariant",
    "owner",
    "prerequisites",
    "rollout",
    "rules",
    "source",
    "state",
    "tags",
    "targeting",
    "targets",
    "variants",
];
pub(super) const MAX_STALENESS: &[&str] = &["after", "serve"];
pub(super) const PREREQUISITE: &[&str] = &["flag", "variants"];
pub(super) const TARGET: &[&str] = &["keys", "variant"];
pub(super) const RULE: &[&str] = &["description", "name", "serve", "split", "when"];
pub(super) const SPLIT: &[&str] = &["baseline", "by", "hash", "salt", "weights"];
pub(super) const SEGMENT: &[&str] = &["description", "excluded", "included", "when"];

impl Document {
    /// Reads YAML or JSON. Every problem is reported, with its line.
    ///
    /// Only the shape is checked; whether names lead somewhere is for [`super::compile`] and [`super::check_environment`].
    pub fn parse(text: &str) -> Result<Self, Problems> {
        match Self::parse_partly(text) {
            (Some(document), problems) => problems.into_result(document),
            (None, problems) => Err(problems),
        }
    }

    /// The same for whoever wants to go on and find more: what cannot be read is left out. Without a problem there is a document, and it
    /// is whole.
    pub fn parse_partly(text: &str) -> (Option<Self>, Problems) {
        Self::parse_partly_with(text, &Templates::default())
    }

    /// The same beside templates of other documents.
    pub fn parse_partly_with(text: &str, templates: &Templates) -> (Option<Self>, Problems) {
        let mut problems = Problems::default();
        let document = if text.len() > limits::DOCUMENT_BYTES {
            problems.found(Path::ROOT, format!("{} bytes", text.len()), format!("at most {} bytes", limits::DOCUMENT_BYTES));
            None
        } else {
            tree(text, &mut problems).and_then(|root| document(&root, templates, &mut problems))
        };
        (document, problems.located_in(text))
    }
}

impl Flag {
    /// Reads what [`Flag::to_canonical_json`] writes, or any other JSON spelling of it. Paths of problems begin at the flag.
    pub fn from_json(json: &[u8]) -> Result<Self, Problems> {
        Self::from_json_named(Naming::Ours, json)
    }

    /// The same by a rule of names that the caller names.
    pub fn from_json_named(naming: Naming, json: &[u8]) -> Result<Self, Problems> {
        // What is stored is filled in.
        let none = Templates::default();
        from_json(json, limits::FLAG_BYTES, |node, path, problems| flag(naming, node, &Library::of(&none), path, problems))
    }
}

impl Segment {
    /// Reads what [`Segment::to_canonical_json`] writes, or any other JSON spelling of it. Paths of problems begin at the segment.
    pub fn from_json(json: &[u8]) -> Result<Self, Problems> {
        from_json(json, limits::SEGMENT_BYTES, segment)
    }
}

fn from_json<T>(json: &[u8], most_bytes: usize, read: impl FnOnce(&Node<'_>, Path<'_>, &mut Problems) -> Option<T>) -> Result<T, Problems> {
    let mut problems = Problems::default();
    if json.len() > most_bytes {
        problems.found(Path::ROOT, format!("{} bytes", json.len()), format!("at most {most_bytes} bytes"));
        return Err(problems);
    }
    let item = match Node::from_json(json) {
        Ok(root) => read(&root, Path::ROOT, &mut problems),
        Err(error) => {
            problems.found(Path::ROOT, format!("text that is no JSON ({error})"), "JSON");
            None
        }
    };
    match item {
        Some(item) => problems.into_result(item),
        None => Err(problems),
    }
}

/// What begins like JSON is read as JSON, which is quicker and knows every escape; if that fails it may still be YAML in flow style.
fn tree<'t>(text: &'t str, problems: &mut Problems) -> Option<Node<'t>> {
    if text.trim_start().starts_with('{')
        && let Ok(root) = Node::from_json(text.as_bytes())
    {
        return Some(root);
    }
    match yaml::parse(text) {
        Ok(root) => Some(root),
        Err(yaml::NotYaml { line, found, expected }) => {
            problems.push(super::Problem { path: String::new(), line, found, expected: expected.to_owned(), hint: None });
            None
        }
    }
}

/// Those of a document; what is wrong with it is not told.
pub(super) fn templates(text: &str) -> Templates {
    let problems = &mut Problems::default();
    let root = if text.len() > limits::DOCUMENT_BYTES { None } else { tree(text, problems) };
    let fields = root.as_ref().and_then(|root| Fields::of(root, "a document", DOCUMENT, Path::ROOT, problems));
    fields.map(|fields| template::templates(&fields, Path::ROOT, problems)).unwrap_or_default()
}

fn document(root: &Node<'_>, others: &Templates, problems: &mut Problems) -> Option<Document> {
    let path = Path::ROOT;
    let fields = Fields::of(root, "a document", DOCUMENT, path, problems)?;
    let mut templates = template::templates(&fields, path, problems);
    templates.join(others.clone());
    let library = Library::of(&templates);
    let mut flags = fields.map("flags", "flags by key", path, problems, |key, node, path, problems| {
        is_key(Naming::Ours, key, path, problems);
        flag(Naming::Ours, node, &library, path, problems)
    });
    let segments = fields.map("segments", "segments by key", path, problems, |key, node, path, problems| {
        is_key(Naming::Ours, key, path, problems);
        segment(node, path, problems)
    });
    let evaluators =
        fields.map("$evaluators", "evaluators by name", path, problems, |_, node, path, problems| value::logic(node, path, problems));
    let evaluators = evaluators.into_iter().collect();
    let place = path.key("flags");
    for (key, flag) in &mut flags {
        if let Some(targeting) = &mut flag.targeting {
            write_out(targeting, &evaluators, place.key(key).key("targeting"), problems);
        }
    }
    Some(Document { flags, segments, metadata: metadata(&fields, path, problems), evaluators })
}

fn is_key(naming: Naming, key: &str, path: Path<'_>, problems: &mut Problems) {
    if !naming.takes_key(key) {
        problems.found(path, quoted(key), naming.key());
    }
}

fn metadata(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> Metadata {
    fields.map("metadata", "text, numbers and booleans by name", path, problems, |_, node, path, problems| {
        value::scalar(node, path, problems)
    })
}

fn flag(naming: Naming, node: &Node<'_>, library: &Library<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Flag> {
    let fields = Fields::of(node, "a flag", FLAG, path, problems)?;
    let variants = fields.map("variants", "variants by name", path, problems, |name, node, path, problems| {
        if !naming.takes_variant(name) {
            problems.found(path, quoted(name), naming.variant());
        }
        value::value(node, path, problems)
    });
    if fields.get("variants").is_none() {
        problems.found(path, "a flag without `variants`", "at least one variant");
    } else if matches!(fields.get("variants"), Some(Node::Map(entries)) if entries.is_empty()) {
        problems.found(path.key("variants"), "no variant", "at least one variant");
    }
    value::one_type(&variants, path.key("variants"), problems);
    let default_variant = fields.text("defaultVariant", path, problems);
    let mut metrics =
        fields.map("metrics", "metrics by name", path, problems, |_, node, path, problems| metric::metric(node, path, problems));
    let mut guard = fields.list("guard", "guards", path, problems, metric::guard);
    let place = path.key("rollout");
    let rollout = match fields.get("rollout") {
        Some(node) if template::is_instance(node) => {
            let variants = template::Variants { names: &variants, default: default_variant.as_deref() };
            let filled = template::instance(node, &variants, library, place, problems).unwrap_or_default();
            // What the flag says itself stands.
            filled.metrics.into_iter().for_each(|(name, metric)| _ = metrics.entry(name).or_insert(metric));
            let own: BTreeSet<String> = guard.iter().map(|guard| guard.name.clone()).collect();
            guard.extend(filled.guard.into_iter().filter(|guard| !own.contains(&guard.name)));
            filled.plan
        }
        node => node.and_then(|node| plan::plan(node, place, problems)),
    };
    Some(Flag {
        description: fields.text("description", path, problems),
        owner: fields.text("owner", path, problems),
        tags: fields.set("tags", "a tag", path, problems),
        kind: choice(&fields, "kind", Kind::ALL, Kind::as_str, path, problems),
        expected_lifetime: fields.get("expectedLifetime").and_then(|node| lifetime(node, path.key("expectedLifetime"), problems)),
        state: choice(&fields, "state", FlagState::ALL, FlagState::as_str, path, problems).unwrap_or_default(),
        variants,
        default_variant,
        default_split: fields.get("defaultSplit").and_then(|node| split(node, path.key("defaultSplit"), problems)),
        off_variant: fields.text("offVariant", path, problems),
        kill_variant: fields.text("killVariant", path, problems),
        max_staleness: fields.get("maxStaleness").and_then(|node| max_staleness(node, path.key("maxStaleness"), problems)),
        prerequisites: fields.list("prerequisites", "prerequisites", path, problems, prerequisite),
        targets: fields.list("targets", "targets", path, problems, target),
        rules: fields.list("rules", "rules", path, problems, rule),
        targeting: targeting(&fields, path, problems),
        fractional_version: fractional_version(&fields, path, problems).unwrap_or_default(),
        metrics,
        guard,
        rollout,
        metadata: metadata(&fields, path, problems),
        source: fields.text("source", path, problems),
    })
}

/// flagd's `{}` is no targeting; its `null` is one.
fn targeting(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> Option<Json> {
    let path = path.key("targeting");
    match fields.entry("targeting")? {
        Node::Map(entries) if entries.is_empty() => None,
        node @ (Node::Map(_) | Node::Null) => value::logic(node, path, problems),
        node => {
            problems.found(path, node.to_string(), "JsonLogic, as an object");
            None
        }
    }
}

fn fractional_version(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> Option<FractionalVersion> {
    let node = fields.get("fractionalVersion")?;
    let version = match node {
        Node::Number(number) => FractionalVersion::ALL.into_iter().find(|version| number.as_f64() == Some(version.number().into())),
        _ => None,
    };
    if version.is_none() {
        problems.found(path.key("fractionalVersion"), node.to_string(), "1, 2 or 3");
    }
    version
}

/// One of the names of an enum.
fn choice<T: Copy, const N: usize>(
    fields: &Fields<'_, '_>,
    key: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
    path: Path<'_>,
    problems: &mut Problems,
) -> Option<T> {
    let node = fields.get(key)?;
    let choice = match node {
        Node::String(found) => all.into_iter().find(|choice| name(*choice) == found),
        _ => None,
    };
    if choice.is_none() {
        let names = all.map(name);
        let hint = if let Node::String(found) = node { did_you_mean(found, names) } else { None };
        problems.hinted(path.key(key), node.to_string(), format!("one of {}", names.join(", ")), hint);
    }
    choice
}

/// `40d`, `6w`, `permanent`.
fn lifetime(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Lifetime> {
    const EXPECTED: &str = "days such as 40d, weeks such as 6w, or permanent";
    let found = text(node, EXPECTED, path, problems)?;
    let days = |digits: &str, factor: u32| digits.parse::<u32>().ok().and_then(|count| count.checked_mul(factor)).filter(|days| *days > 0);
    let lifetime = match (found.as_str(), found.strip_suffix('d'), found.strip_suffix('w')) {
        ("permanent", ..) => Some(Lifetime::Permanent),
        (_, Some(digits), _) => days(digits, 1).map(Lifetime::Days),
        (.., Some(digits)) => days(digits, 7).map(Lifetime::Days),
        _ => None,
    };
    if lifetime.is_none() {
        problems.found(path, quoted(&found), EXPECTED);
    }
    lifetime
}

fn max_staleness(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<MaxStaleness> {
    let fields = Fields::of(node, "a limit of staleness", MAX_STALENESS, path, problems)?;
    let after = required(&fields, "after", "a limit of staleness", path, problems);
    let after = after.and_then(|found| seconds(&found, path.key("after"), problems));
    let serve = required(&fields, "serve", "a limit of staleness", path, problems);
    Some(MaxStaleness { after_s: after?, serve: serve? })
}

/// `30s`, `5m`, `2h`, `1d`. How long it may be is for [`super::compile`].
fn seconds(found: &str, path: Path<'_>, problems: &mut Problems) -> Option<u64> {
    let units = MaxStaleness::UNITS.into_iter();
    let read = units.filter_map(|(unit, factor)| Some((found.strip_suffix(unit)?, factor))).find_map(|(digits, factor)| {
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor))
    });
    if read.is_none() {
        problems.found(path, quoted(found), "seconds, minutes, hours or days, such as 30s, 5m, 2h or 1d");
    }
    read
}

fn prerequisite(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Prerequisite> {
    let fields = Fields::of(node, "a prerequisite", PREREQUISITE, path, problems)?;
    let flag = required(&fields, "flag", "a prerequisite", path, problems);
    let variants = fields.set("variants", "the name of a variant", path, problems);
    if !matches!(fields.get("variants"), Some(Node::List(list)) if !list.is_empty()) {
        problems.found(path.key("variants"), "no variant", "a list of the variants, at least one, that the other flag must serve");
    }
    Some(Prerequisite { flag: flag?, variants })
}

fn target(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Target> {
    let fields = Fields::of(node, "a target", TARGET, path, problems)?;
    let variant = required(&fields, "variant", "a target", path, problems);
    let keys = fields.set("keys", "a targeting key", path, problems);
    Some(Target { variant: variant?, keys })
}

fn rule(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Rule> {
    let fields = Fields::of(node, "a rule", RULE, path, problems)?;
    let name = fields.text("name", path, problems);
    let description = fields.text("description", path, problems);
    let when = fields.list("when", "conditions", path, problems, condition::condition);
    let serve = match (fields.get("serve"), fields.get("split")) {
        (Some(node), None) => text(node, "the name of a variant", path.key("serve"), problems).map(Serve::Variant),
        (None, Some(node)) => split(node, path.key("split"), problems).map(Serve::Split),
        (None, None) => {
            problems.found(path, "a rule that serves nothing", "`serve` with the name of a variant, or a `split`");
            None
        }
        (Some(_), Some(_)) => {
            problems.found(path, "`serve` and `split`", "one of them");
            None
        }
    };
    Some(Rule { name, description, when, serve: serve? })
}

fn split(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Split> {
    let fields = Fields::of(node, "a split", SPLIT, path, problems)?;
    let weights =
        fields.map("weights", "weights by variant", path, problems, |_, node, path, problems| value::weight(node, path, problems));
    if fields.get("weights").is_none() {
        problems.found(path, "a split without `weights`", "`weights` with a share for each variant");
    }
    Some(Split {
        by: fields.text("by", path, problems),
        salt: fields.text("salt", path, problems),
        hash: hash(&fields, path, problems).unwrap_or_default(),
        weights,
        baseline: fields.text("baseline", path, problems),
    })
}

fn hash(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> Option<Hash> {
    if let Some(Node::String(name)) = fields.get("hash")
        && &**name == "sha1"
    {
        problems.found(
            path.key("hash"),
            format!("{name:?}, which is not supported yet"),
            "metro or murmur3: the hashes of other systems come with their importers",
        );
        return None;
    }
    choice(fields, "hash", Hash::ALL, Hash::as_str, path, problems)
}

fn segment(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Segment> {
    let fields = Fields::of(node, "a segment", SEGMENT, path, problems)?;
    Some(Segment {
        description: fields.text("description", path, problems),
        included: fields.set("included", "a targeting key", path, problems),
        excluded: fields.set("excluded", "a targeting key", path, problems),
        when: fields.list("when", "conditions", path, problems, condition::condition),
    })
}

fn required(fields: &Fields<'_, '_>, key: &str, what: &str, path: Path<'_>, problems: &mut Problems) -> Option<String> {
    if fields.get(key).is_none() {
        problems.found(path, format!("{what} without `{key}`"), format!("`{key}`"));
    }
    fields.text(key, path, problems)
}
