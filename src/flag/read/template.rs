//! Templates, and flags that name one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::limits;
use super::super::node::{Node, quoted};
use super::super::plan::{Guard, Metric, Plan};
use super::super::problem::{Path, Problem, Problems, did_you_mean};
use super::super::template::{self, BASELINE, Library, TREATMENT, Template, Templates, Values};
use super::super::value::Value;
use super::fields::Fields;
use super::{metric, plan, required};

pub(in super::super) const TEMPLATE: &[&str] = &["description", "guard", "metrics", "parameters", "rollout"];
pub(in super::super) const PARAMETER: &[&str] = &["default", "description"];
pub(in super::super) const INSTANCE: &[&str] = &["template", "with"];

/// What of a flag says who stands for `baseline` and `treatment`.
pub(super) struct Variants<'f> {
    pub(super) names: &'f BTreeMap<String, Value>,
    pub(super) default: Option<&'f str>,
}

/// A rollout with what it measures.
#[derive(Default)]
pub(super) struct Rollout {
    pub(super) metrics: BTreeMap<String, Metric>,
    pub(super) guard: Vec<Guard>,
    pub(super) plan: Option<Plan>,
}

pub(super) fn templates(fields: &Fields<'_, '_>, path: Path<'_>, problems: &mut Problems) -> Templates {
    let read = fields.map("templates", "templates by name", path, problems, |name, node, path, problems| {
        if !limits::is_key(name) {
            let expected = format!("a name of 1 to {} letters, digits, dots, underscores and hyphens", limits::KEY_BYTES);
            problems.found(path, quoted(name), expected);
        }
        template(node, path, problems)
    });
    if read.len() > limits::TEMPLATES {
        problems.found(path.key("templates"), format!("{} templates", read.len()), format!("at most {}", limits::TEMPLATES));
    }
    let mut templates = Templates::default();
    read.into_iter().for_each(|(name, template)| templates.insert(name, template));
    templates
}

fn template(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Template> {
    let fields = Fields::of(node, "a template", TEMPLATE, path, problems)?;
    let bytes = template::size(node);
    if bytes > limits::TEMPLATE_BYTES {
        problems.found(path, format!("a template of about {bytes} bytes"), format!("at most {}", limits::TEMPLATE_BYTES));
        return None;
    }
    fields.text("description", path, problems);
    let parameters = fields.map("parameters", "parameters by name", path, problems, parameter);
    let known = || parameters.keys().map(String::as_str).chain([BASELINE, TREATMENT]);
    for place in ["guard", "metrics", "rollout"] {
        let mut asked = Vec::new();
        fields.get(place).into_iter().for_each(|node| template::asked(node, &mut asked));
        asked.sort_unstable();
        asked.dedup();
        for name in asked.into_iter().filter(|name| known().all(|known| known != *name)) {
            let (found, hint) = (format!("the unknown parameter {}", quoted(name)), did_you_mean(name, known()));
            problems.hinted(path.key(place), found, "one that stands in `parameters`, or baseline or treatment", hint);
        }
    }
    let rollout = match fields.get("rollout") {
        Some(node) if is_instance(node) => {
            problems.found(path.key("rollout"), node.to_string(), "a rollout: a template does not name another one");
            return None;
        }
        Some(node) => node.clone().into_owned(),
        None => {
            problems.found(path, "a template without `rollout`", "`rollout`");
            return None;
        }
    };
    let owned = |place: &str| fields.get(place).cloned().map(Node::into_owned);
    Some(Template { metrics: owned("metrics"), guard: owned("guard"), rollout, parameters })
}

/// What it is when nobody gives it; null: it has to be given.
fn parameter(name: &str, node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Option<Node<'static>>> {
    if !template::is_name(name) {
        problems.found(path, quoted(name), "a name that starts with a letter and has letters, digits and underscores");
    }
    if *node == Node::Null {
        return Some(None);
    }
    let fields = Fields::of(node, "a parameter", PARAMETER, path, problems)?;
    fields.text("description", path, problems);
    match fields.get("default") {
        None => Some(None),
        Some(node) => value(node, path.key("default"), problems).map(Some),
    }
}

/// Of a parameter.
fn value(node: &Node<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Node<'static>> {
    let is_scalar = |node: &Node<'_>| matches!(node, Node::Bool(_) | Node::Number(_) | Node::String(_));
    let is_value = match node {
        Node::List(elements) => elements.iter().all(is_scalar),
        node => is_scalar(node),
    };
    if !is_value {
        problems.found(path, node.to_string(), "text, a number, true, false, or a list of those");
        return None;
    }
    Some(node.clone().into_owned())
}

/// Whether a flag's rollout is the name of a template, alone or with parameters.
pub(super) fn is_instance(node: &Node<'_>) -> bool {
    match node {
        Node::String(_) => true,
        Node::Map(entries) => entries.iter().any(|(key, _)| key == "template"),
        _ => false,
    }
}

/// The rollout that a flag has by way of a template. What is wrong in there is told where the flag names it.
pub(super) fn instance(
    node: &Node<'_>,
    variants: &Variants<'_>,
    library: &Library<'_>,
    path: Path<'_>,
    problems: &mut Problems,
) -> Option<Rollout> {
    let (name, given) = match node {
        Node::String(name) => (name.clone().into_owned(), BTreeMap::new()),
        node => {
            let fields = Fields::of(node, "a rollout by a template", INSTANCE, path, problems)?;
            let given = fields.map("with", "values by parameter", path, problems, |_, node, path, problems| value(node, path, problems));
            (required(&fields, "template", "a rollout", path, problems)?, given)
        }
    };
    let Some(template) = library.get(&name) else {
        let place = if matches!(node, Node::String(_)) { path } else { path.key("template") };
        let known: Vec<_> = library.names().collect();
        let expected = format!("a rollout, or the name of a template: {}", known.join(", "));
        problems.hinted(place, format!("the unknown template {}", quoted(&name)), expected, did_you_mean(&name, known.iter().copied()));
        return None;
    };
    let known = || template.parameters.keys().map(String::as_str).chain([BASELINE, TREATMENT]);
    let with = path.key("with");
    for parameter in given.keys().filter(|parameter| known().all(|known| known != parameter.as_str())) {
        let found = format!("an unknown parameter {}", quoted(parameter));
        problems.hinted(with.key(parameter), found, format!("a parameter of {name}"), did_you_mean(parameter, known()));
    }
    let mut by_name = BTreeMap::new();
    for (parameter, usual) in &template.parameters {
        match given.get(parameter).or(usual.as_ref()) {
            Some(value) => _ = by_name.insert(parameter.as_str(), Cow::Borrowed(value)),
            None => problems.found(with, format!("no `{parameter}`"), format!("a value for it: template {name} has none by itself")),
        }
    }
    let variant = |text: &str| Cow::Owned(Node::String(Cow::Owned(text.to_owned())));
    let given_text = |parameter: &str| match given.get(parameter) {
        Some(Node::String(text)) => Some(&**text),
        _ => None,
    };
    let baseline = given_text(BASELINE).or(variants.default);
    let treatment = given_text(TREATMENT).or_else(|| {
        let mut others = variants.names.keys().map(String::as_str).filter(|name| Some(*name) != baseline);
        others.next().filter(|_| others.next().is_none())
    });
    for (parameter, found, why) in [
        (BASELINE, baseline, "the flag has no default variant"),
        (TREATMENT, treatment, "the flag does not have exactly one variant beside the baseline"),
    ] {
        match (template.parameters.contains_key(parameter), given.get(parameter), found) {
            (true, ..) => {}
            (false, Some(value), _) => _ = by_name.insert(parameter, Cow::Borrowed(value)),
            (false, None, Some(found)) => _ = by_name.insert(parameter, variant(found)),
            (false, None, None) => problems.found(with, format!("no `{parameter}`"), format!("the name of a variant: {why}")),
        }
    }
    let values = Values { by_name, left: &library.left };
    let mut inner = Problems::default();
    let rollout = fill(template, &values, path, problems).map(|filled| read(&filled, &mut inner));
    for Problem { path: place, found, expected, hint, .. } in inner {
        let found = format!("{found} at {place} of template {name}");
        problems.hinted(path, found, expected, hint);
    }
    rollout
}

/// As an object with the keys that a flag has too; `None` when a parameter has no value, which was told.
fn fill(template: &Template, values: &Values<'_>, path: Path<'_>, problems: &mut Problems) -> Option<Node<'static>> {
    let parts = [("metrics", template.metrics.as_ref()), ("guard", template.guard.as_ref()), ("rollout", Some(&template.rollout))];
    let mut entries = Vec::new();
    for (place, node) in parts.into_iter().filter_map(|(place, node)| Some((place, node?))) {
        let mut asked = Vec::new();
        template::asked(node, &mut asked);
        if asked.iter().any(|name| !values.by_name.contains_key(name)) {
            return None;
        }
        match values.fill(node) {
            Ok(node) => entries.push((Cow::Borrowed(place), node)),
            Err(problem) => {
                problems.found(path, problem.to_string(), "a template that can be filled in");
                return None;
            }
        }
    }
    Some(Node::Map(entries))
}

fn read(filled: &Node<'_>, problems: &mut Problems) -> Rollout {
    let path = Path::ROOT;
    let Some(fields) = Fields::of(filled, "a template", TEMPLATE, path, problems) else { return Rollout::default() };
    Rollout {
        metrics: fields.map("metrics", "metrics by name", path, problems, |_, node, path, problems| metric::metric(node, path, problems)),
        guard: fields.list("guard", "guards", path, problems, metric::guard),
        plan: fields.get("rollout").and_then(|node| plan::plan(node, path.key("rollout"), problems)),
    }
}
