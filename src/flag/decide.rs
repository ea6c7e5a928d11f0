//! The order of evaluation, exactly: killed, disabled, stale, prerequisites, targets, rules or targeting, default. Total, and without an
//! allocation, but for a `targeting` that reads or makes lists and objects (`logic`).

use super::compiled::{Compiled, CompiledFlag, Outcome, Prerequisite, Split};
use super::condition::read;
use super::context::{Attribute, Attributes};
use super::decision::{Decision, Reason};
use super::limits;
use super::logic::{Found, Spent};

/// Other flags of the same state, for prerequisites, and how old the state is.
pub trait Lookup {
    fn flag(&self, key: &str) -> Option<CompiledFlag>;

    /// Milliseconds since the last proof that the state is the newest. Only a flag that limits its age asks.
    fn age_ms(&self) -> u64 {
        0
    }

    /// Unix time in seconds. Only `targeting` that reads `$flagd.timestamp` asks.
    fn unix_s(&self) -> i64 {
        0
    }
}

/// No other flags: every prerequisite fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFlags;

impl Lookup for NoFlags {
    fn flag(&self, _key: &str) -> Option<CompiledFlag> {
        None
    }
}

/// No other flags, in a state of this age.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFlagsAt {
    pub age_ms: u64,
}

impl Lookup for NoFlagsAt {
    fn flag(&self, _key: &str) -> Option<CompiledFlag> {
        None
    }

    fn age_ms(&self) -> u64 {
        self.age_ms
    }
}

/// How far prerequisites of prerequisites may still go. The environment is checked for cycles and depth when it is committed; these bounds
/// hold also if one slipped through, and then the prerequisite fails.
pub(super) struct Bounds {
    levels: usize,
    decisions: u32,
}

impl Bounds {
    pub(super) fn new() -> Self {
        Self { levels: limits::NESTING, decisions: limits::PREREQUISITE_DECISIONS }
    }
}

/// The one rule of a flag that has `targeting`, by which decisions tell it from individual targets.
const TARGETING: Option<&str> = Some("targeting");

impl CompiledFlag {
    pub fn decide<A: Attributes + ?Sized>(&self, context: &A, flags: &dyn Lookup) -> Decision<'_> {
        self.decide_within(context, flags, &mut Bounds::new())
    }

    pub(super) fn decide_within<A: Attributes + ?Sized>(&self, context: &A, flags: &dyn Lookup, bounds: &mut Bounds) -> Decision<'_> {
        let flag = &*self.shared;
        if self.is_killed {
            return self.plain(flag.kill_variant, Reason::Killed, None);
        }
        if flag.is_disabled {
            return self.plain(flag.off_variant, Reason::Disabled, None);
        }
        if let Some(staleness) = &flag.staleness
            && staleness.is_reached(flags.age_ms())
        {
            return self.plain(Some(staleness.variant), Reason::Stale, None);
        }
        if !flag.prerequisites.iter().all(|prerequisite| prerequisite.holds(context, flags, bounds)) {
            return self.plain(flag.off_variant, Reason::PrerequisiteFailed, None);
        }
        if let Some(variant) = flag.target(context) {
            return self.plain(Some(variant), Reason::TargetingMatch, None);
        }
        let mut start = 0;
        for rule in &flag.rules {
            if flag.conditions.hold(start..rule.conditions_end, context) {
                let name = flag.conditions.text(rule.name);
                return self.outcome(&rule.outcome, Reason::TargetingMatch, Some(name), context);
            }
            start = rule.conditions_end;
        }
        match flag.targeting.as_ref().map(|targeting| targeting.variant(&flag.key, &flag.variants, context, flags)) {
            Some(Ok(Found::Variant(variant))) => return self.plain(Some(variant), Reason::TargetingMatch, TARGETING),
            // A name that the flag does not have is no reason to serve somebody anything of it (flagd.md 2.2: GENERAL).
            Some(Ok(Found::NoVariant)) => return self.plain(None, Reason::Error, TARGETING),
            Some(Ok(Found::Unreadable)) => return Decision { is_unreadable: true, ..self.plain(None, Reason::Error, TARGETING) },
            // The default variant all the same, which is where a rule that does not fit leads; a split would hide the error.
            Some(Err(Spent)) => return self.plain(flag.default_variant, Reason::Error, TARGETING),
            Some(Ok(Found::Nothing)) | None => {}
        }
        let reason = if flag.is_static { Reason::Static } else { Reason::Default };
        self.outcome(&flag.default, reason, None, context)
    }

    fn plain<'f>(&'f self, variant: Option<u16>, reason: Reason, rule: Option<&'f str>) -> Decision<'f> {
        Decision { variant: self.variant(variant), reason, rule, bucket: None, key_missing: false, is_unreadable: false }
    }

    fn outcome<'f, A: Attributes + ?Sized>(
        &'f self,
        outcome: &Outcome,
        reason: Reason,
        rule: Option<&'f str>,
        context: &A,
    ) -> Decision<'f> {
        match outcome {
            Outcome::Variant(variant) => self.plain(Some(*variant), reason, rule),
            Outcome::CallersDefault => self.plain(None, reason, rule),
            Outcome::Split(split) => {
                let bucket = split.key(&self.shared, context).and_then(|key| split.dealing.bucket_of(key));
                let variant = bucket.map_or(split.without_key, |bucket| split.variant(bucket));
                Decision { bucket, key_missing: bucket.is_none(), ..self.plain(Some(variant), Reason::Split, rule) }
            }
        }
    }
}

impl Compiled {
    pub(super) fn target<A: Attributes + ?Sized>(&self, context: &A) -> Option<u16> {
        let targets = self.targets.as_ref()?;
        targets.keys.find(context.targeting_key()?).and_then(|index| targets.variants.get(index)).copied()
    }
}

impl Split {
    pub(super) fn key<'c, A: Attributes + ?Sized>(&self, flag: &Compiled, context: &'c A) -> Option<Attribute<'c>> {
        match self.by {
            None => context.targeting_key().map(Attribute::String),
            Some(name) => read(flag.conditions.name(name), context),
        }
    }

    pub(super) fn variant(&self, bucket: u32) -> u16 {
        let index = self.ranges.partition_point(|range| range.end <= bucket);
        self.ranges.get(index).map_or(self.without_key, |range| range.variant)
    }
}

impl Prerequisite {
    pub(super) fn holds<A: Attributes + ?Sized>(&self, context: &A, flags: &dyn Lookup, bounds: &mut Bounds) -> bool {
        if bounds.levels == 0 || bounds.decisions == 0 {
            return false;
        }
        let Some(flag) = flags.flag(&self.flag) else { return false };
        bounds.levels -= 1;
        bounds.decisions -= 1;
        let decision = flag.decide_within(context, flags, bounds);
        bounds.levels += 1;
        decision.variant.is_some_and(|served| self.variants.iter().any(|variant| **variant == *served.name))
    }
}
