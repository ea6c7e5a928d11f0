//! The order of evaluation as one `if`: prerequisites, targets, rules or targeting, default.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::super::bucket::{Dealing, Murmur};
use super::super::compiled::{Compiled, CompiledFlag, Outcome, Prerequisite, Split};
use super::super::context::TARGETING_KEY;
use super::super::decide::Lookup;
use super::super::document::FractionalVersion;
use super::super::limits;
use super::Obstacle;
use super::condition::{attribute, is_filled_text};
use super::logic::{Truth, asks, operator};

/// What a flag serves.
#[derive(Debug, PartialEq)]
pub(super) enum Served {
    /// The same to everybody; `None`: the caller's default.
    Constant(Option<u16>),
    /// JsonLogic that gives the name of a variant, or null.
    Depends(Json),
}

/// Of one flag, with all that is written out in it.
pub(super) struct Translator<'t> {
    /// The key that the engine has for `fractional` without a unit.
    key: &'t str,
    flags: &'t dyn Lookup,
    /// Bytes that may still be written.
    bytes: usize,
    levels: usize,
    prerequisites: u32,
}

/// What null means, and who may have a `targeting`.
#[derive(Clone, Copy, PartialEq)]
enum Place<'t> {
    /// Null is the default variant.
    Flag(Option<&'t Json>),
    /// Null is the caller's default: the default variant is named where it is served.
    Explicit,
}

impl<'t> Translator<'t> {
    pub(super) fn new(key: &'t str, flags: &'t dyn Lookup) -> Self {
        Self { key, flags, bytes: limits::TRANSLATED_BYTES, levels: limits::NESTING, prerequisites: limits::PREREQUISITE_DECISIONS }
    }

    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Obstacle> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Obstacle::Size)?;
        Ok(())
    }

    /// What it serves, and whether null is the caller's default in it, which a flag that may serve nothing although it has a default needs.
    pub(super) fn flag(mut self, flag: &CompiledFlag, targeting: Option<&Json>) -> Result<(Served, bool), Obstacle> {
        let Compiled { prerequisites, off_variant, default_variant, .. } = &*flag.shared;
        let is_explicit = !prerequisites.is_empty() && off_variant.is_none() && default_variant.is_some();
        let place = if is_explicit { Place::Explicit } else { Place::Flag(targeting) };
        Ok((self.served(flag, place)?, is_explicit))
    }

    fn served(&mut self, flag: &CompiledFlag, place: Place<'_>) -> Result<Served, Obstacle> {
        let compiled = &*flag.shared;
        if flag.is_killed {
            return Ok(Served::Constant(compiled.kill_variant));
        }
        if compiled.is_disabled {
            return Ok(Served::Constant(compiled.off_variant));
        }
        if compiled.staleness.is_some() {
            return Err(Obstacle::Staleness);
        }
        let mut clauses = Vec::new();
        match self.prerequisites(&compiled.prerequisites)? {
            Truth::Always => {}
            Truth::Never => return Ok(Served::Constant(compiled.off_variant)),
            Truth::Depends(holds) => clauses.extend([operator("!", [holds]), self.name(compiled, compiled.off_variant)?]),
        }
        self.targets(compiled, &mut clauses)?;
        let end = self.rules(flag, place, &mut clauses)?;
        if clauses.is_empty() {
            return Ok(end);
        }
        match end {
            Served::Depends(json) => clauses.push(json),
            Served::Constant(index) => {
                let is_said = place != Place::Explicit && index == compiled.default_variant;
                if !is_said && index.is_some() {
                    clauses.push(self.name(compiled, index)?);
                }
            }
        }
        Ok(Served::Depends(operator("if", clauses)))
    }

    fn targets(&mut self, compiled: &Compiled, clauses: &mut Vec<Json>) -> Result<(), Obstacle> {
        let Some(targets) = &compiled.targets else { return Ok(()) };
        let mut by_variant: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (key, variant) in targets.keys.iter().zip(&targets.variants) {
            by_variant.entry(*variant).or_default().push(key);
        }
        for (variant, keys) in by_variant {
            if let Truth::Depends(is_one) = self.has_key(keys.into_iter())? {
                clauses.extend([is_one, self.name(compiled, Some(variant))?]);
            }
        }
        Ok(())
    }

    /// Adds those before the one that always decides, and answers with that.
    fn rules(&mut self, flag: &CompiledFlag, place: Place<'_>, clauses: &mut Vec<Json>) -> Result<Served, Obstacle> {
        let compiled = &*flag.shared;
        let mut start = 0;
        for rule in &compiled.rules {
            let conditions = compiled.conditions.range(start..rule.conditions_end);
            start = rule.conditions_end;
            match self.conditions(&compiled.conditions, conditions)? {
                Truth::Never => {}
                Truth::Always => return self.outcome(flag, &rule.outcome),
                Truth::Depends(holds) => {
                    let then = match self.outcome(flag, &rule.outcome)? {
                        Served::Constant(index) => self.name(compiled, index)?,
                        Served::Depends(json) => json,
                    };
                    clauses.extend([holds, then]);
                }
            }
        }
        match (&compiled.targeting, place) {
            (None, _) => self.outcome(flag, &compiled.default),
            (Some(_), Place::Flag(Some(targeting))) if compiled.is_default_plain() => Ok(Served::Depends(targeting.clone())),
            (Some(_), _) => Err(Obstacle::Prerequisite),
        }
    }

    fn outcome(&mut self, flag: &CompiledFlag, outcome: &Outcome) -> Result<Served, Obstacle> {
        match outcome {
            Outcome::Variant(index) => Ok(Served::Constant(Some(*index))),
            Outcome::CallersDefault => Ok(Served::Constant(None)),
            Outcome::Split(split) => match split.everybody() {
                Some(index) => Ok(Served::Constant(Some(index))),
                None => self.split(flag, split).map(Served::Depends),
            },
        }
    }

    /// `fractional` for whom has a key, and who has none is told apart before: to it that would be nothing.
    fn split(&mut self, flag: &CompiledFlag, split: &Split) -> Result<Json, Obstacle> {
        let Dealing::Murmur3(Murmur { version, salt, is_implicit }) = &split.dealing else { return Err(Obstacle::MetroSplit) };
        if *version != FractionalVersion::V3 {
            return Err(Obstacle::FractionalVersion);
        }
        let compiled = &*flag.shared;
        let by = split.by.map_or(TARGETING_KEY, |name| compiled.conditions.name(name).as_str());
        let value = attribute(by)?;
        self.spend(128 + salt.len() + 2 * by.len())?;
        let mut operands = Vec::new();
        match is_implicit {
            true if flag.key() != self.key => return Err(Obstacle::Prerequisite),
            true => {}
            false => operands.push(operator("cat", [format!("/{salt}/").into(), value.clone(), "/".into()])),
        }
        let mut start = 0;
        for range in &split.ranges {
            operands.push(json!([self.name(compiled, Some(range.variant))?, range.end - start]));
            start = range.end;
        }
        let dealt = operator("fractional", operands);
        Ok(match is_filled_text(&value) {
            Truth::Depends(has_key) => operator("if", [has_key, dealt, self.name(compiled, Some(split.without_key))?]),
            _ => dealt,
        })
    }

    fn prerequisites(&mut self, prerequisites: &[Prerequisite]) -> Result<Truth, Obstacle> {
        let each = prerequisites.iter().map(|prerequisite| self.prerequisite(prerequisite)).collect::<Result<Vec<_>, _>>()?;
        Ok(Truth::all(each))
    }

    fn prerequisite(&mut self, Prerequisite { flag: key, variants }: &Prerequisite) -> Result<Truth, Obstacle> {
        // Where a decision has its bounds the prerequisite fails; they are never met in an environment that was checked.
        if self.levels == 0 || self.prerequisites == 0 {
            return Err(Obstacle::Prerequisite);
        }
        let Some(flag) = self.flags.flag(key) else { return Ok(Truth::Never) };
        self.levels -= 1;
        self.prerequisites -= 1;
        let served = self.served(&flag, Place::Explicit)?;
        self.levels += 1;
        self.spend(variants.iter().map(|variant| variant.len() + 3).sum())?;
        Ok(match served {
            Served::Constant(index) => {
                let will_do = flag.variant(index).is_some_and(|served| variants.iter().any(|variant| **variant == *served.name));
                if will_do { Truth::Always } else { Truth::Never }
            }
            Served::Depends(json) => asks("in", [json, json!(variants)]),
        })
    }

    fn name(&mut self, compiled: &Compiled, index: Option<u16>) -> Result<Json, Obstacle> {
        let name = index.and_then(|index| compiled.variants.get(usize::from(index))).map(|variant| variant.name.as_str());
        self.spend(name.map_or(0, str::len) + 16)?;
        Ok(name.map_or(Json::Null, Json::from))
    }
}
