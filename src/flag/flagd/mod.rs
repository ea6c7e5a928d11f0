//! A flag as flagd's engines read it: what a native flag means, said in JsonLogic, for clients that evaluate by themselves.
//!
//! A translation means the same for every context, or there is none: a flag that cannot be said is left out by whoever sends it, and never
//! sent with another meaning. What the engines of flagd disagree about is avoided; which forms are left is told in `condition`.
//!
//! Of a decision the variant is kept, and nothing else: reasons, rules and buckets have no place in flagd's format.

mod chain;
mod condition;
mod logic;

use serde_json::{Map, Value as Json};

use super::compiled::CompiledFlag;
use super::decide::Lookup;
use super::document::{Flag, FlagState, FractionalVersion, Scalar};
use super::value::number_to_json;
use chain::{Served, Translator};

/// A flag of flagd's.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    pub state: FlagState,
    /// `None`: the caller's default.
    pub default_variant: Option<String>,
    pub variants: Map<String, Json>,
    /// `None`: the default variant for everybody.
    pub targeting: Option<Json>,
    pub metadata: Map<String, Json>,
    /// Where it was read.
    pub source: Option<String>,
}

/// Why a flag cannot be said in flagd's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    MetroSplit,
    Regex,
    Network,
    Date,
    Attribute,
    Staleness,
    Prerequisite,
    FractionalVersion,
    VariantName,
    Size,
    /// It does not compile here either.
    Definition,
}

impl Obstacle {
    pub const ALL: [Self; 11] = [
        Self::MetroSplit,
        Self::Regex,
        Self::Network,
        Self::Date,
        Self::Attribute,
        Self::Staleness,
        Self::Prerequisite,
        Self::FractionalVersion,
        Self::VariantName,
        Self::Size,
        Self::Definition,
    ];

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MetroSplit => "metro_split",
            Self::Regex => "regex",
            Self::Network => "network",
            Self::Date => "date",
            Self::Attribute => "attribute",
            Self::Staleness => "staleness",
            Self::Prerequisite => "prerequisite",
            Self::FractionalVersion => "fractional_version",
            Self::VariantName => "variant_name",
            Self::Size => "size",
            Self::Definition => "definition",
        }
    }

    /// What stands in the way, and what to do about it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::MetroSplit => "a split by the hash `metro`, which flagd's engines do not have; `hash: murmur3` can be sent",
            Self::Regex => "the operator `matches`, which flagd's engines do not have",
            Self::Network => "the operator `cidr`, which flagd's engines do not have",
            Self::Date => "the operator `before` or `after`, which flagd's engines do not have for dates with offsets",
            Self::Attribute => "an attribute whose name has a dot or a backslash, or is `$flagd`: flagd's engines read another one",
            Self::Staleness => "`maxStaleness`, which an engine that has no control plane cannot know",
            Self::Prerequisite => {
                "a prerequisite whose `targeting` or split belongs to its own key, or a `targeting` below a prerequisite without `offVariant`"
            }
            Self::FractionalVersion => "`fractional` of version 1 or 2, where flagd's engines have version 3",
            Self::VariantName => "a variant without a name, which flagd's engines take for none",
            Self::Size => "a flag that is larger than 1 MiB with its segments and prerequisites written out",
            Self::Definition => "a definition that does not compile",
        }
    }
}

/// `document`: what the flag was compiled from. `flags`: for its prerequisites.
pub fn translate(flag: &CompiledFlag, document: &Flag, flags: &dyn Lookup) -> Result<Translation, Obstacle> {
    let Flag { variants, targeting, metadata, default_variant, source, .. } = document;
    if variants.contains_key("") {
        return Err(Obstacle::VariantName);
    }
    let translation = Translation {
        state: FlagState::Enabled,
        default_variant: None,
        variants: variants.iter().map(|(name, value)| (name.clone(), value.to_json())).collect(),
        targeting: None,
        // A name that is empty breaks Python's engine off, for all flags.
        metadata: metadata.iter().filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name.clone(), scalar(value))).collect(),
        source: source.clone(),
    };
    let is_at_rest = flag.is_killed() || flag.is_disabled();
    if flag.is_disabled() && !flag.is_killed() && flag.off_variant().is_none() {
        // As it is: nobody evaluates it.
        let (default_variant, targeting) = (default_variant.clone(), targeting.clone());
        return Ok(Translation { state: FlagState::Disabled, default_variant, targeting, ..translation });
    }
    if !is_at_rest
        && flag.shared.targeting.is_some()
        && document.fractional_version != FractionalVersion::V3
        && has_fractional(targeting.as_ref())
    {
        return Err(Obstacle::FractionalVersion);
    }
    let name = |index| flag.variant(index).map(|variant| variant.name.clone());
    let (served, is_explicit) = Translator::new(flag.key(), flags).flag(flag, targeting.as_ref())?;
    Ok(match served {
        // Null for everybody: the same, and no `targeting` to schemas and engines that want an object.
        Served::Depends(Json::Null) => Translation { default_variant: default_variant.clone(), ..translation },
        Served::Constant(index) => Translation { default_variant: name(index), ..translation },
        Served::Depends(targeting) => {
            let default_variant = if is_explicit { None } else { default_variant.clone() };
            Translation { default_variant, targeting: Some(targeting), ..translation }
        }
    })
}

fn scalar(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::Bool(value) => Json::Bool(*value),
        Scalar::Number(value) => number_to_json(*value),
        Scalar::String(value) => Json::String(value.clone()),
    }
}

fn has_fractional(targeting: Option<&Json>) -> bool {
    match targeting {
        Some(Json::Object(fields)) => fields.contains_key("fractional") || fields.values().any(|field| has_fractional(Some(field))),
        Some(Json::Array(elements)) => elements.iter().any(|element| has_fractional(Some(element))),
        _ => false,
    }
}

impl Translation {
    /// As flagd writes it (flagd.md 1.3): the default variant is always a text, and no field is there that some engine does not know.
    /// A flag that says no source is of `environment`.
    pub fn to_json(&self, environment: &str) -> Json {
        let Self { state, default_variant, variants, targeting, metadata, source } = self;
        let mut fields = Map::new();
        fields.insert("state".to_owned(), state.as_str().into());
        fields.insert("defaultVariant".to_owned(), default_variant.clone().unwrap_or_default().into());
        fields.insert("variants".to_owned(), Json::Object(variants.clone()));
        if let Some(targeting) = targeting {
            fields.insert("targeting".to_owned(), targeting.clone());
        }
        fields.insert("source".to_owned(), source.as_deref().unwrap_or(environment).into());
        if !metadata.is_empty() {
            fields.insert("metadata".to_owned(), Json::Object(metadata.clone()));
        }
        Json::Object(fields)
    }
}
