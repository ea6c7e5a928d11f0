//! The JSON Schema (draft 2020-12) of the flag document, for editors and `yardarm flag schema`.
//!
//! It is written by hand and held to the reader by tests: here every key that the reader knows is in it and no other; in
//! `tests/it/flag_schema.rs` what one refuses, so does the other. It knows less than [`super::compile`]: names that lead nowhere pass.

use serde_json::Value as Json;

/// The schema as it is shipped.
pub const SCHEMA: &str = include_str!("schema.json");

/// The schema, parsed.
pub fn schema() -> Json {
    serde_json::from_str(SCHEMA).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::document::{FlagState, Hash, Kind};
    use super::super::plan::{AlphaOnRetry, Direction, Mode, OnDeadline, OnFail};
    use super::super::{limits, read};
    use super::*;

    fn definition(name: &str) -> Json {
        match name {
            "" => schema(),
            name => schema()["$defs"][name].clone(),
        }
    }

    #[test]
    fn each_key_that_is_read_is_in_the_schema_and_no_other() {
        for (name, keys) in [
            ("", read::DOCUMENT),
            ("flag", read::FLAG),
            ("maxStaleness", read::MAX_STALENESS),
            ("prerequisite", read::PREREQUISITE),
            ("target", read::TARGET),
            ("rule", read::RULE),
            ("split", read::SPLIT),
            ("condition", read::CONDITION),
            ("segment", read::SEGMENT),
            ("metric", read::METRIC),
            ("margin", read::MARGIN),
            ("guard", read::GUARD),
            ("rollout", read::PLAN),
            ("template", read::TEMPLATE),
            ("parameter", read::PARAMETER),
            ("instance", read::INSTANCE),
            ("stage", read::STAGE),
            ("start", read::START),
            ("gate", read::GATE),
            ("approval", read::APPROVAL),
            ("fullCheck", read::CHECK),
            ("sampleRatio", read::SAMPLE_RATIO),
        ] {
            let definition = definition(name);
            let known: BTreeSet<&str> = definition["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(known, keys.iter().copied().collect(), "{name}");
            assert_eq!(definition["additionalProperties"], false, "{name}");
        }
    }

    #[test]
    fn each_choice_of_the_types_is_in_the_schema_and_no_other() {
        let flag = &definition("flag")["properties"];
        assert_eq!(flag["kind"]["enum"], Json::from(Kind::ALL.map(Kind::as_str).to_vec()));
        assert_eq!(flag["state"]["enum"], Json::from(FlagState::ALL.map(FlagState::as_str).to_vec()));
        assert_eq!(definition("metric")["properties"]["kind"]["enum"], Json::from(read::METRIC_KINDS.to_vec()));
        assert_eq!(definition("metric")["properties"]["direction"]["enum"], Json::from(Direction::ALL.map(Direction::as_str).to_vec()));
        assert_eq!(definition("mode")["enum"], Json::from(Mode::ALL.map(Mode::as_str).to_vec()));
        assert_eq!(definition("onFail")["enum"], Json::from(OnFail::ALL.map(OnFail::as_str).to_vec()));
        let rollout = &definition("rollout")["properties"];
        assert_eq!(rollout["alphaOnRetry"]["enum"], Json::from(AlphaOnRetry::ALL.map(AlphaOnRetry::as_str).to_vec()));
        assert_eq!(definition("stage")["properties"]["onDeadline"]["enum"], Json::from(OnDeadline::ALL.map(OnDeadline::as_str).to_vec()));
        assert_eq!(definition("split")["properties"]["hash"]["enum"], Json::from(Hash::ALL.map(Hash::as_str).to_vec()));
    }

    #[test]
    fn each_operator_needs_an_attribute() {
        let condition = definition("condition");
        let required: BTreeSet<&str> =
            condition["oneOf"].as_array().unwrap().iter().filter_map(|one| one["required"].as_array()?.last()?.as_str()).collect();
        let expected: BTreeSet<&str> = read::CONDITION.iter().copied().filter(|key| !matches!(*key, "attribute" | "not")).collect();
        assert_eq!(required, expected);
    }

    #[test]
    fn the_limits_are_those_that_are_enforced() {
        let flag = &definition("flag")["properties"];
        for (found, limit) in [
            (&flag["rules"]["maxItems"], limits::RULES),
            (&flag["variants"]["maxProperties"], limits::VARIANTS),
            (&flag["tags"]["maxItems"], limits::TAGS),
            (&flag["prerequisites"]["maxItems"], limits::PREREQUISITES),
            (&flag["metrics"]["maxProperties"], limits::METRICS),
            (&flag["guard"]["maxItems"], limits::GUARDS),
            (&definition("rollout")["properties"]["stages"]["maxItems"], limits::STAGES),
            (&definition("stage")["properties"]["gates"]["maxItems"], limits::GATES),
            (&schema()["properties"]["templates"]["maxProperties"], limits::TEMPLATES),
            (&definition("conditions")["maxItems"], limits::CONDITIONS),
            (&definition("condition")["properties"]["matches"]["maxLength"], limits::REGEX_BYTES),
            (&definition("name")["maxLength"], limits::KEY_BYTES),
        ] {
            assert_eq!(found, &Json::from(limit));
        }
        assert_eq!(definition("key")["pattern"], format!("^[A-Za-z0-9._-]{{1,{}}}$", limits::KEY_BYTES));
    }
}
