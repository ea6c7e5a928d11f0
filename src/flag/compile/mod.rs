//! The only place where a flag can be refused: a [`Flag`] to a [`CompiledFlag`], with every problem at once.

mod conditions;
mod plan;
mod split;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use conditions::Compiler;

use super::compiled::{Compiled, CompiledFlag, Outcome, Prerequisite, Rule, Staleness, Targets};
use super::document::{self, Flag, FlagState, MaxStaleness, Serve};
use super::keys::KeySet;
use super::limits;
use super::logic::Program;
use super::measured::Measured;
use super::naming::Naming;
use super::node::quoted;
use super::problem::{Path, Problems, did_you_mean};
use super::segment::Segments;
use super::value::ValueType;
use super::{Value, Variant};

/// Compiles `flag` as the flag `key`. Paths of problems begin with `flags.<key>`.
///
/// Prerequisites are other flags, so only [`super::check_environment`] can say whether they are there.
pub fn compile(key: &str, flag: &Flag, segments: &Segments) -> Result<CompiledFlag, Problems> {
    compile_named(Naming::Ours, key, flag, segments)
}

/// The same by a rule of keys that the caller names.
pub fn compile_named(naming: Naming, key: &str, flag: &Flag, segments: &Segments) -> Result<CompiledFlag, Problems> {
    let mut problems = Problems::default();
    let compiled = compile_flag(naming, key, flag, segments, &mut problems);
    match compiled {
        Some(compiled) if problems.is_empty() => Ok(CompiledFlag::new(compiled)),
        _ => Err(problems.under(&Path::ROOT.key("flags").key(key).to_string())),
    }
}

fn compile_flag(naming: Naming, key: &str, flag: &Flag, segments: &Segments, problems: &mut Problems) -> Option<Compiled> {
    let path = Path::ROOT;
    if !naming.takes_key(key) {
        problems.found(path, quoted(key), naming.key());
    }
    if flag.targeting.is_some() && !flag.rules.is_empty() {
        problems.found(path.key("targeting"), "`rules` and `targeting`", "one of them");
    }
    for (count, most, place) in [
        (flag.rules.len(), limits::RULES, "rules"),
        (flag.variants.len(), limits::VARIANTS, "variants"),
        (flag.tags.len(), limits::TAGS, "tags"),
        (flag.prerequisites.len(), limits::PREREQUISITES, "prerequisites"),
    ] {
        if count > most {
            problems.found(path.key(place), format!("{count} {place}"), format!("at most {most}"));
        }
    }
    if let Some(tag) = flag.tags.iter().find(|tag| tag.len() > limits::KEY_BYTES) {
        problems.found(path.key("tags"), quoted(tag), format!("tags of at most {} bytes", limits::KEY_BYTES));
    }
    let kind = value_type(flag, path, problems);

    let names = Names { flag };
    let default_variant = names.optional(&flag.default_variant, path.key("defaultVariant"), problems);
    let off_variant = names.optional(&flag.off_variant, path.key("offVariant"), problems);
    let kill_variant = names.optional(&flag.kill_variant, path.key("killVariant"), problems);
    let staleness = flag.max_staleness.as_ref().and_then(|limit| staleness(&names, limit, path.key("maxStaleness"), problems));
    let prerequisites = prerequisites(naming, key, flag, path, problems);
    let targets = targets(&names, flag, path, problems);
    plan::measures(flag, problems);
    if let Some(rollout) = &flag.rollout {
        plan::rollout(&names, flag, rollout, problems);
    }

    let targeting = flag.targeting.as_ref();
    let targeting =
        targeting.map(|targeting| Box::new(Program::compile(targeting, flag.fractional_version, path.key("targeting"), problems)));
    let mut compiler = Compiler::new(segments, problems);
    let rules = rules(key, &names, flag, default_variant, &mut compiler);
    let default = match &flag.default_split {
        Some(to) => split::split(key, &names, to, default_variant, path.key("defaultSplit"), &mut compiler).map(Outcome::split),
        None => Some(default_variant.map_or(Outcome::CallersDefault, Outcome::Variant)),
    };
    let (conditions, cost) = compiler.finish();
    if cost > limits::FLAG_COST {
        problems.found(
            path.key("rules"),
            format!("{cost} conditions, those of segments counted"),
            format!("at most {}", limits::FLAG_COST),
        );
    }

    let is_false = |value: &Value| *value == Value::Bool(false);
    let false_variant = flag.variants.values().position(is_false).and_then(|index| u16::try_from(index).ok());
    Some(Compiled {
        key: key.into(),
        kind: kind?,
        is_disabled: flag.state == FlagState::Disabled,
        is_static: flag.has_default()
            && flag.rules.is_empty()
            && targeting.is_none()
            && flag.targets.is_empty()
            && flag.prerequisites.is_empty()
            && flag.max_staleness.is_none(),
        variants: flag.variants.iter().map(|(name, value)| Variant { name: name.clone(), value: value.clone() }).collect(),
        off_variant,
        kill_variant: kill_variant.or(off_variant).or(false_variant).or(default_variant),
        staleness,
        tags: flag.tags.iter().map(|tag| tag.as_str().into()).collect(),
        prerequisites,
        targets,
        rules: rules?,
        targeting,
        default: default?,
        default_variant,
        conditions,
        measured: Measured::of(flag).map(Box::new),
    })
}

/// The type that all variants have.
fn value_type(flag: &Flag, path: Path<'_>, problems: &mut Problems) -> Option<ValueType> {
    let mut values = flag.variants.values();
    let Some(first) = values.next() else {
        problems.found(path.key("variants"), "no variant", "at least one variant");
        return None;
    };
    if let Some(other) = values.find(|value| value.kind() != first.kind()) {
        problems.found(path.key("variants"), format!("a {} and a {}", first.kind(), other.kind()), "variants of one type");
    }
    Some(first.kind())
}

/// Names of variants to their indices, which are in the order of the names.
struct Names<'f> {
    flag: &'f Flag,
}

impl Names<'_> {
    fn index(&self, name: &str, path: Path<'_>, problems: &mut Problems) -> Option<u16> {
        let variants = &self.flag.variants;
        if variants.contains_key(name) {
            return u16::try_from(variants.keys().take_while(|known| known.as_str() < name).count()).ok();
        }
        let hint = did_you_mean(name, variants.keys().map(String::as_str));
        let known = variants.keys().map(|name| quoted(name)).take(10).collect::<Vec<_>>().join(", ");
        problems.hinted(path, format!("the unknown variant {}", quoted(name)), format!("a variant of this flag ({known})"), hint);
        None
    }

    fn optional(&self, name: &Option<String>, path: Path<'_>, problems: &mut Problems) -> Option<u16> {
        self.index(name.as_ref()?, path, problems)
    }
}

fn staleness(names: &Names<'_>, limit: &MaxStaleness, path: Path<'_>, problems: &mut Problems) -> Option<Box<Staleness>> {
    let MaxStaleness { after_s, serve } = limit;
    if !limits::STALE_AFTER_S.contains(after_s) {
        problems.found(path.key("after"), quoted(&limit.after()), "1s to 30d");
    }
    let variant = names.index(serve, path.key("serve"), problems)?;
    Some(Box::new(Staleness { after_ms: after_s.saturating_mul(1_000), variant }))
}

fn prerequisites(naming: Naming, key: &str, flag: &Flag, path: Path<'_>, problems: &mut Problems) -> Box<[Prerequisite]> {
    let list = path.key("prerequisites");
    let mut seen = BTreeSet::new();
    let mut compiled = Vec::with_capacity(flag.prerequisites.len());
    for (index, document::Prerequisite { flag, variants }) in flag.prerequisites.iter().enumerate() {
        let element = list.index(index);
        let place = element.key("flag");
        if flag == key {
            problems.found(place, "the flag itself", "another flag");
        } else if !naming.takes_key(flag) {
            problems.found(place, quoted(flag), "the key of a flag");
        } else if !seen.insert(flag.as_str()) {
            problems.found(place, format!("{} a second time", quoted(flag)), "each flag once, with all variants that will do");
        }
        compiled.push(Prerequisite { flag: flag.as_str().into(), variants: variants.iter().map(|name| name.as_str().into()).collect() });
    }
    compiled.into()
}

fn targets(names: &Names<'_>, flag: &Flag, path: Path<'_>, problems: &mut Problems) -> Option<Box<Targets>> {
    let list = path.key("targets");
    let mut variants: BTreeMap<&str, u16> = BTreeMap::new();
    for (index, target) in flag.targets.iter().enumerate() {
        let element = list.index(index);
        let Some(variant) = names.index(&target.variant, element.key("variant"), problems) else { continue };
        for key in &target.keys {
            if variants.insert(key, variant).is_some() {
                problems.found(element.key("keys"), format!("{}, which another target has", quoted(key)), "each key in one target");
            }
        }
    }
    let keys = KeySet::of(variants.keys().copied());
    (!keys.is_empty()).then(|| Box::new(Targets { keys, variants: variants.into_values().collect() }))
}

fn rules(key: &str, names: &Names<'_>, flag: &Flag, default_variant: Option<u16>, compiler: &mut Compiler<'_>) -> Option<Box<[Rule]>> {
    let path = Path::ROOT;
    let list = path.key("rules");
    let mut seen = BTreeSet::new();
    let mut rules = Vec::with_capacity(flag.rules.len());
    for (index, rule) in flag.rules.iter().enumerate() {
        let element = list.index(index);
        let name = rule.name.clone().unwrap_or_else(|| format!("rule-{}", index + 1));
        if name.is_empty() || name.len() > limits::KEY_BYTES {
            compiler.problems().found(element.key("name"), quoted(&name), format!("a name of 1 to {} bytes", limits::KEY_BYTES));
        }
        let conditions_end = compiler.conditions(&rule.when, element.key("when"));
        let outcome = match &rule.serve {
            Serve::Variant(variant) => names.index(variant, element.key("serve"), compiler.problems()).map(Outcome::Variant),
            Serve::Split(to) => split::split(key, names, to, default_variant, element.key("split"), compiler).map(Outcome::split),
        };
        if seen.contains(&name) {
            compiler.problems().found(element.key("name"), format!("{} a second time", quoted(&name)), "each name once");
        }
        if let Some(outcome) = outcome {
            rules.push(Rule { name: compiler.text(&name), conditions_end, outcome });
        }
        seen.insert(name);
    }
    (rules.len() == flag.rules.len()).then(|| rules.into())
}
