//! A decision in words, rule by rule: what was asked, what was found, and what decided. `decide` is the judge; this tells how it came to it.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::bucket::BUCKETS;
use super::compiled::{CompiledFlag, Outcome, Prerequisite, Split, Staleness};
use super::condition::{Condition, Conditions, Operator};
use super::context::{Attribute, Attributes, Name, TARGETING_KEY};
use super::decide::{Bounds, Lookup};
use super::decision::{Decision, Reason};
use super::describe::{attribute_in_words, condition_in_words, span_in_words};
use super::limits;
use super::logic::Spent;

/// Why a flag answers a context as it does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub flag: String,
    /// `None`: the caller's default.
    pub variant: Option<String>,
    pub value: Option<Json>,
    /// As OpenFeature writes it.
    pub reason: &'static str,
    pub rule: Option<String>,
    pub bucket: Option<u32>,
    pub key_missing: bool,
    /// In the order of evaluation. The last one decided; what comes after it in the flag was not looked at.
    pub steps: Vec<Step>,
}

/// One of the things that are looked at in turn: the kill, the state, prerequisites, targets, each rule or the targeting, the default.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `rule internal-and-beta`.
    pub name: String,
    pub decides: bool,
    /// What was found, or what is served.
    pub outcome: String,
    pub conditions: Vec<Asked>,
}

/// A condition, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// `cohort in "beta", "internal"`.
    pub condition: String,
    pub holds: bool,
    /// `cohort is absent`.
    pub found: String,
    /// Conditions of the segment that this one asks for.
    pub within: Vec<Asked>,
}

impl CompiledFlag {
    /// The decision that [`CompiledFlag::decide`] makes, and how it comes about.
    pub fn explain<A: Attributes + ?Sized>(&self, context: &A, flags: &dyn Lookup) -> Explanation {
        let decision = self.decide(context, flags);
        let Decision { variant, reason, rule, bucket, key_missing, is_unreadable: _ } = decision;
        Explanation {
            flag: self.key().to_owned(),
            variant: variant.map(|variant| variant.name.clone()),
            value: variant.map(|variant| variant.value.to_json()),
            reason: reason.as_str(),
            rule: rule.map(str::to_owned),
            bucket,
            key_missing,
            steps: self.steps(context, flags, &decision),
        }
    }

    fn steps<A: Attributes + ?Sized>(&self, context: &A, flags: &dyn Lookup, decision: &Decision<'_>) -> Vec<Step> {
        let flag = &*self.shared;
        let served = || match decision.variant {
            Some(variant) => format!("serves {}", variant.name),
            None => "serves the caller's default".to_owned(),
        };
        match decision.reason {
            Reason::Killed => return vec![Step::decides("kill", format!("the flag is killed: {}", served()))],
            Reason::Disabled => return vec![Step::decides("state", format!("the flag is disabled: {}", served()))],
            _ => {}
        }
        let mut steps = Vec::new();
        if let Some(Staleness { after_ms, .. }) = flag.staleness.as_deref() {
            let is_stale = decision.reason == Reason::Stale;
            let (age, limit) = (span_in_words(flags.age_ms()), span_in_words(*after_ms));
            let age = format!("the state was known to be the newest {age} ago, at most {limit} are allowed");
            let outcome = if is_stale { format!("{age}: {}", served()) } else { age };
            steps.push(Step { name: "maxStaleness".to_owned(), decides: is_stale, outcome, conditions: Vec::new() });
            if is_stale {
                return steps;
            }
        }
        if !flag.prerequisites.is_empty() {
            let mut bounds = Bounds::new();
            let mut conditions: Vec<Asked> = Vec::new();
            for prerequisite in &flag.prerequisites {
                conditions.push(prerequisite.asked(context, flags, &mut bounds));
                if conditions.last().is_some_and(|asked| !asked.holds) {
                    break;
                }
            }
            let fails = decision.reason == Reason::PrerequisiteFailed;
            let outcome = if fails { format!("one fails: {}", served()) } else { "all hold".to_owned() };
            steps.push(Step { name: "prerequisites".to_owned(), decides: fails, outcome, conditions });
            if fails {
                return steps;
            }
        }
        if flag.targets.is_some() {
            let is_target = flag.target(context).is_some();
            let outcome = match context.targeting_key() {
                Some(key) if is_target => format!("{key:?} is one: {}", served()),
                Some(key) => format!("{key:?} is none of them"),
                None => "there is no targeting key".to_owned(),
            };
            steps.push(Step { name: "targets".to_owned(), decides: is_target, outcome, conditions: Vec::new() });
            if is_target {
                return steps;
            }
        }
        let mut start = 0;
        for rule in &flag.rules {
            let conditions = flag.conditions.asked(start..rule.conditions_end, context);
            start = rule.conditions_end;
            let decides = conditions.iter().all(|asked| asked.holds);
            let outcome = if decides { self.outcome_in_words(&rule.outcome, context) } else { "does not apply".to_owned() };
            steps.push(Step { name: format!("rule {}", flag.conditions.text(rule.name)), decides, outcome, conditions });
            if decides {
                return steps;
            }
        }
        if let Some(targeting) = flag.targeting.as_deref() {
            let gave = targeting.result_in_words(&flag.key, context, flags);
            let read: Vec<String> = targeting.reads().map(|name| format!("{} {}", name.as_str(), found_in_words(name, context))).collect();
            let from = if read.is_empty() { String::new() } else { format!(" ({})", read.join(", ")) };
            let decides = matches!(decision.reason, Reason::TargetingMatch | Reason::Error);
            let outcome = match gave {
                Ok(gave) if !decides => format!("gave {gave}{from}"),
                Ok(gave) if decision.is_unreadable => format!("gave {gave}: {}", served()),
                Ok(gave) if decision.reason == Reason::Error => format!("gave {gave}{from}, which is no variant: {}", served()),
                Ok(gave) => format!("gave {gave}{from}: {}", served()),
                Err(Spent) => format!("takes more than {} steps{from}: {}", limits::TARGETING_STEPS, served()),
            };
            steps.push(Step { name: "targeting".to_owned(), decides, outcome, conditions: Vec::new() });
            if decides {
                return steps;
            }
        }
        steps.push(Step::decides("default", self.outcome_in_words(&flag.default, context)));
        steps
    }

    fn outcome_in_words<A: Attributes + ?Sized>(&self, outcome: &Outcome, context: &A) -> String {
        match outcome {
            Outcome::Variant(variant) => format!("serves {}", self.variant_name(*variant)),
            Outcome::CallersDefault => "the flag has no default variant: serves the caller's default".to_owned(),
            Outcome::Split(split) => self.split_in_words(split, context),
        }
    }

    fn split_in_words<A: Attributes + ?Sized>(&self, split: &Split, context: &A) -> String {
        let by = split.by.map_or(TARGETING_KEY, |name| self.shared.conditions.name(name).as_str());
        let key = split.key(&self.shared, context);
        let Some((key, bucket)) = key.and_then(|key| Some((key, split.dealing.bucket_of(key)?))) else {
            let found = attribute_in_words(key);
            return format!("split by {by}, which {found}, so without a key to bucket by: serves {}", self.variant_name(split.without_key));
        };
        let variant = split.variant(bucket);
        let mut start = 0;
        let mut owned = Vec::new();
        for range in &split.ranges {
            if range.variant == variant {
                owned.push(format!("{start}..={}", range.end - 1));
            }
            start = range.end;
        }
        let share = split.share(variant);
        format!(
            "split by {by}, which {}, with {}: bucket {bucket} of {BUCKETS} is in {} ({} %): serves {}",
            attribute_in_words(Some(key)),
            split.dealing,
            owned.join(", "),
            f64::from(share) / 10_000.0,
            self.variant_name(variant)
        )
    }

    fn variant_name(&self, index: u16) -> &str {
        self.variant(Some(index)).map_or("", |variant| &variant.name)
    }
}

impl Step {
    fn decides(name: &str, outcome: String) -> Self {
        Self { name: name.to_owned(), decides: true, outcome, conditions: Vec::new() }
    }
}

impl Split {
    /// Buckets of a variant.
    fn share(&self, variant: u16) -> u32 {
        let mut start = 0;
        let mut share = 0;
        for range in &self.ranges {
            if range.variant == variant {
                share += range.end - start;
            }
            start = range.end;
        }
        share
    }
}

impl Prerequisite {
    fn asked<A: Attributes + ?Sized>(&self, context: &A, flags: &dyn Lookup, bounds: &mut Bounds) -> Asked {
        let holds = self.holds(context, flags, bounds);
        let found = match flags.flag(&self.flag) {
            None => format!("{} is unknown", self.flag),
            Some(flag) => {
                let decision = flag.decide(context, flags);
                let served = decision.variant.map_or("the caller's default", |variant| &variant.name);
                format!("{} serves {served} ({})", self.flag, decision.reason.as_str())
            }
        };
        let wanted = self.variants().collect::<Vec<_>>().join(" or ");
        Asked { condition: format!("flag {} serves {wanted}", self.flag), holds, found, within: Vec::new() }
    }
}

impl Conditions {
    fn asked<A: Attributes + ?Sized>(&self, range: std::ops::Range<u32>, context: &A) -> Vec<Asked> {
        self.range(range).iter().map(|condition| condition.asked(self, context)).collect()
    }
}

impl Condition {
    fn asked<A: Attributes + ?Sized>(&self, all: &Conditions, context: &A) -> Asked {
        let condition = condition_in_words(self, all);
        let holds = self.holds(all, context);
        let (found, within) = match &self.operator {
            Operator::Segment(index) => all.segment(*index).asked(context),
            _ => {
                let name = all.name(self.name());
                (format!("{} {}", name.as_str(), found_in_words(name, context)), Vec::new())
            }
        };
        Asked { condition, holds, found, within }
    }
}

impl super::segment::CompiledSegment {
    fn asked<A: Attributes + ?Sized>(&self, context: &A) -> (String, Vec<Asked>) {
        let key = context.targeting_key();
        match key {
            Some(key) if self.included.contains(key) => return (format!("{key:?} is included"), Vec::new()),
            Some(key) if self.excluded.contains(key) => return (format!("{key:?} is excluded"), Vec::new()),
            _ => {}
        }
        let found = match (key, self.when.all.is_empty()) {
            (Some(key), true) => format!("{key:?} is not included, and there are no conditions"),
            (None, true) => "there is no targeting key, and there are no conditions".to_owned(),
            (_, false) if self.has(context) => "its conditions hold".to_owned(),
            (_, false) => "its conditions do not all hold".to_owned(),
        };
        (found, self.when.asked(0..self.when.all.len() as u32, context))
    }
}

/// `is "pro"`, `is absent`, `is a list of "a", "b"`.
fn found_in_words<A: Attributes + ?Sized>(name: Name<'_>, context: &A) -> String {
    const SHOWN: usize = 5;
    let attribute = super::condition::read(name, context);
    if attribute != Some(Attribute::List) {
        return attribute_in_words(attribute);
    }
    let mut elements = Vec::new();
    let mut count = 0;
    context.any_element(name.as_str(), &mut |element| {
        count += 1;
        if elements.len() < SHOWN {
            elements.push(attribute_in_words(Some(element)).trim_start_matches("is ").to_owned());
        }
        false
    });
    match count - elements.len() {
        0 => format!("is a list of {}", if count == 0 { "nothing".to_owned() } else { elements.join(", ") }),
        more => format!("is a list of {} and {more} more", elements.join(", ")),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, variant, value: _, reason, rule, bucket, key_missing, steps } = self;
        write!(f, "{flag}: {} ({reason}", variant.as_deref().unwrap_or("the caller's default"))?;
        if let Some(rule) = rule {
            write!(f, ", rule {rule}")?;
        }
        if let Some(bucket) = bucket {
            write!(f, ", bucket {bucket}")?;
        }
        writeln!(f, "{})", if *key_missing { ", no key to bucket by" } else { "" })?;
        steps.iter().try_for_each(|step| step.fmt(f))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} {}: {}", if self.decides { "->" } else { "  " }, self.name, self.outcome)?;
        self.conditions.iter().try_for_each(|asked| asked.write(f, 4))
    }
}

impl Asked {
    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        let Self { condition, holds, found, within } = self;
        writeln!(f, "{:indent$}   {} {condition}: {found}", "", if *holds { "yes" } else { "no " })?;
        within.iter().try_for_each(|asked| asked.write(f, indent + 4))
    }
}
