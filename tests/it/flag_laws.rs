//! Laws of evaluation, for flags and contexts that nobody thought of.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use yardarm::flag::{
    BUCKETS, CompiledFlag, Condition, Context, Document, Flag, FlagState, Hash, Lookup, MaxStaleness, NoFlags, NoFlagsAt, Operator,
    Prerequisite, Reason, Rule, SAMPLES, Scalar, Segment, Segments, Serve, Split, Target, Test, Value, Weight, bucket, compile,
};

/// A flag that gives `percent` to `on`, and the rest to `off`, its default.
fn ramp(percent: f64) -> Flag {
    let text =
        "flags: { f: { variants: { on: true, off: false }, defaultVariant: off, rules: [{ split: { weights: { on: 1, off: 1 } } }] } }";
    Document::parse(text).unwrap().flags["f"].with_percent(percent).unwrap()
}

fn compiled(key: &str, flag: &Flag) -> CompiledFlag {
    compile(key, flag, &Segments::none()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Whether each of `count` users gets `on`.
fn served(flag: &CompiledFlag, count: usize) -> Vec<bool> {
    (0..count).map(|user| flag.decide(&Context::new(format!("user-{user}")), &NoFlags).variant.unwrap().name == "on").collect()
}

fn percent() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(100.0), (0..=BUCKETS).prop_map(|buckets| f64::from(buckets) / 10_000.0)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_ramp_never_moves_anybody_out(key in "[a-z._-]{1,40}", mut steps in vec(percent(), 2..6)) {
        steps.sort_by(f64::total_cmp);
        let mut before = vec![false; 500];
        for step in steps {
            let now = served(&compiled(&key, &ramp(step)), before.len());
            prop_assert!(before.iter().zip(&now).all(|(was_in, is_in)| !was_in || *is_in), "{key} at {step} %");
            before = now;
        }
    }

    #[test]
    fn lowering_then_raising_serves_the_same_people(key in "[a-z._-]{1,40}", high in percent(), low in percent()) {
        let flag = ramp(high);
        let again = flag.with_percent(low).unwrap().with_percent(high).unwrap();
        prop_assert_eq!(served(&compiled(&key, &flag), 300), served(&compiled(&key, &again), 300));
        let (few, many) = (served(&compiled(&key, &ramp(low.min(high))), 300), served(&compiled(&key, &ramp(low.max(high))), 300));
        prop_assert!(few.iter().zip(&many).all(|(few, many)| !few || *many));
    }

    #[test]
    fn nobody_is_nobody_and_everybody_is_everybody(key in "[a-z._-]{1,40}", context in context()) {
        for (percent, expected) in [(0.0, "off"), (100.0, "on")] {
            let flag = compiled(&key, &ramp(percent));
            prop_assert_eq!(&flag.decide(&context, &NoFlags).variant.unwrap().name, expected);
            let without_key = Context { targeting_key: None, ..context.clone() };
            prop_assert_eq!(&flag.decide(&without_key, &NoFlags).variant.unwrap().name, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_share_of_nothing_is_served_to_nobody(split in split(), context in context()) {
        let zero: Vec<String> = split.weights.iter().filter(|(_, weight)| matches!(weight, Weight::Relative(0))).map(|(name, _)| name.clone()).collect();
        let flag = Flag { default_split: Some(split), ..plain() };
        if let Ok(flag) = compile("f", &flag, &Segments::none()) {
            let served = flag.decide(&context, &NoFlags).variant.map(|variant| variant.name.clone());
            prop_assert!(!zero.contains(&served.clone().unwrap_or_default()), "{served:?} has no share");
        }
    }

    #[test]
    fn a_kill_wins_over_everything(flag in flag(), context in context()) {
        let Ok(flag) = compile("f", &flag, &segments()) else { return Ok(()) };
        let decision = flag.with_kill(true).decide(&context, &Others).variant.map(|variant| variant.name.clone());
        prop_assert_eq!(decision.as_deref(), flag.kill_variant().map(|variant| variant.name.as_str()));
        prop_assert_eq!(flag.with_kill(true).decide(&context, &Others).reason, Reason::Killed);
        let restored = flag.with_kill(true).with_kill(false);
        prop_assert_eq!(restored.decide(&context, &Others), flag.decide(&context, &Others));
        prop_assert!(!flag.with_kill(true).reads_context());
    }

    #[test]
    fn a_decision_replays_from_definition_and_context(flag in flag(), context in context()) {
        let definition = flag.to_canonical_json();
        let again = Flag::from_json(&definition).unwrap_or_else(|problems| panic!("{problems} in {}", String::from_utf8_lossy(&definition)));
        prop_assert_eq!(&again, &flag);
        prop_assert_eq!(again.to_canonical_json(), definition);
        match (compile("f", &flag, &segments()), compile("f", &again, &segments())) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one.decide(&context, &Others), other.decide(&context, &Others)),
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            (one, other) => prop_assert!(false, "{one:?} and {other:?}"),
        }
    }

    #[test]
    fn an_explanation_tells_of_the_decision_that_is_made(flag in flag(), context in context(), is_killed in proptest::bool::weighted(0.1)) {
        let Ok(flag) = compile("f", &flag, &segments()) else { return Ok(()) };
        let flag = flag.with_kill(is_killed);
        let (decision, explanation) = (flag.decide(&context, &Others), flag.explain(&context, &Others));
        prop_assert_eq!(explanation.variant.as_deref(), decision.variant.map(|variant| variant.name.as_str()));
        prop_assert_eq!(explanation.reason, decision.reason.as_str());
        prop_assert_eq!(explanation.rule.as_deref(), decision.rule);
        prop_assert_eq!(explanation.bucket, decision.bucket);
        let (last, before) = explanation.steps.split_last().unwrap();
        prop_assert!(last.decides && before.iter().all(|step| !step.decides), "{explanation}");
        match decision.rule {
            Some("targeting") => prop_assert_eq!(&last.name, "targeting"),
            Some(rule) => prop_assert_eq!(&last.name, &format!("rule {rule}")),
            None => {}
        }
    }

    #[test]
    fn only_a_kill_and_a_disabled_flag_stand_above_a_state_that_is_too_old(
        flag in flag(), context in context(), is_killed in proptest::bool::weighted(0.1), beyond in 0..10_000_u64,
    ) {
        let Ok(compiled) = compile("f", &flag, &segments()) else { return Ok(()) };
        let compiled = compiled.with_kill(is_killed);
        let Some(limit) = compiled.max_age_ms() else {
            prop_assert_eq!(compiled.decide(&context, &NoFlagsAt { age_ms: u64::MAX }), compiled.decide(&context, &NoFlags));
            return Ok(());
        };
        let (young, old) = (NoFlagsAt { age_ms: limit.saturating_sub(beyond) }, NoFlagsAt { age_ms: limit + 1 + beyond });
        prop_assert_eq!(compiled.decide(&context, &young), compiled.decide(&context, &NoFlags));
        let decision = compiled.decide(&context, &old);
        match is_killed || compiled.is_disabled() {
            true => prop_assert_eq!(decision, compiled.decide(&context, &NoFlags)),
            false => prop_assert_eq!((decision.variant, decision.reason), (compiled.stale_variant(), Reason::Stale)),
        }
    }

    #[test]
    fn who_is_not_asked_does_not_matter(flag in flag(), one in context(), other in context()) {
        let Ok(flag) = compile("f", &flag, &segments()) else { return Ok(()) };
        if !flag.reads_context() {
            prop_assert_eq!(flag.decide(&one, &Others), flag.decide(&other, &Others));
        }
    }

    #[test]
    fn a_document_is_the_same_in_yaml_and_json(flag in flag()) {
        let document = Document { flags: [("f".to_owned(), flag)].into(), ..Document::default() };
        let json = document.to_json();
        prop_assert_eq!(&Document::parse(&json.to_string()).unwrap(), &document);
        // JSON is YAML in flow style; a comment, which JSON has not, makes it nothing else.
        prop_assert_eq!(&Document::parse(&format!("# YAML\n{json}")).unwrap(), &document);
        // And in block style. To this writer, which is of YAML 1.1, two letters are line breaks, after which it indents (`'\u{2028}  '`); in YAML
        // 1.2 these spaces are part of the text.
        if !json.to_string().contains(['\u{2028}', '\u{2029}']) {
            prop_assert_eq!(&Document::parse(&serde_yaml_ng::to_string(&json).unwrap()).unwrap(), &document);
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in prop_oneof![any::<String>(), "[\\[\\]{}:,&*!|>'\"%@`\n -]{0,200}"], bytes in any::<Vec<u8>>()) {
        _ = Document::parse(&text);
        _ = Flag::from_json(&bytes);
        _ = Segment::from_json(text.as_bytes());
    }

    #[test]
    fn no_slip_of_the_pen_makes_reading_or_compiling_panic(at in any::<prop::sample::Index>(), length in 0..20_usize, insert in "[ -~\n]{0,6}") {
        let start = at.index(SAMPLES.len());
        let end = (start + length).min(SAMPLES.len());
        let (Some(head), Some(tail)) = (SAMPLES.get(..start), SAMPLES.get(end..)) else { return Ok(()) };
        if let Ok(document) = Document::parse(&format!("{head}{insert}{tail}")) {
            let (segments, _) = Segments::compile(document.segments.iter().map(|(key, segment)| (key.as_str(), segment)));
            for (key, flag) in &document.flags {
                _ = compile(key, flag, &segments).map(|flag| flag.decide(&Context::new("user-1"), &NoFlags).reason);
            }
        }
    }
}

#[test]
fn sixty_flags_deal_independently_of_each_other() {
    const USERS: usize = 50_000;
    const FLAGS: usize = 60;
    for share in [0.5, 0.1] {
        let boundary = (share * f64::from(BUCKETS)) as u32;
        let dealt: Vec<Vec<bool>> = (0..FLAGS)
            .map(|flag| (0..USERS).map(|user| bucket(&format!("flag-{flag}"), &format!("user-{user}")) < boundary).collect())
            .collect();
        for one in 0..FLAGS {
            for other in one + 1..FLAGS {
                let both = |a: bool, b: bool| dealt[one].iter().zip(&dealt[other]).filter(|(x, y)| **x == a && **y == b).count() as f64;
                let table = [both(true, true), both(true, false), both(false, true), both(false, false)];
                let (rows, columns) = ([table[0] + table[1], table[2] + table[3]], [table[0] + table[2], table[1] + table[3]]);
                let chi_square: f64 = (0..4)
                    .map(|cell| {
                        let expected = rows[cell / 2] * columns[cell % 2] / USERS as f64;
                        (table[cell] - expected).powi(2) / expected
                    })
                    .sum();
                // One degree of freedom: the square of a standard normal variable.
                assert!(chi_square.sqrt() < 5.0, "flag-{one} and flag-{other} at {share}: {:.1} sigma", chi_square.sqrt());
            }
        }
    }
}

#[test]
fn shares_of_a_million_users_are_exact_to_three_sigma() {
    const USERS: u32 = 1_000_000;
    let shares = [("a", 10_000), ("b", 125_000), ("c", 333_333), ("d", 500_000), ("e", 31_667)];
    let weights = shares.iter().map(|(name, buckets)| ((*name).to_owned(), Weight::Percent(*buckets))).collect();
    let variants = shares.iter().map(|(name, _)| ((*name).to_owned(), Value::String((*name).to_owned()))).collect();
    let split = Split { by: None, salt: None, hash: Hash::Metro, weights, baseline: Some("d".to_owned()) };
    let flag = compiled("sales_email_v2_3_0", &Flag { variants, default_split: Some(split), ..Flag::default() });
    let mut counts = [0_u32; 5];
    let mut user = Context::new("");
    for index in 0..USERS {
        user.targeting_key = Some(format!("user-{index}"));
        let served = &flag.decide(&user, &NoFlags).variant.unwrap().name;
        counts[usize::from(served.as_bytes()[0] - b'a')] += 1;
    }
    for ((name, buckets), count) in shares.iter().zip(counts) {
        let share = f64::from(*buckets) / f64::from(BUCKETS);
        let sigma = (f64::from(USERS) * share * (1.0 - share)).sqrt();
        let deviation = (f64::from(count) - f64::from(USERS) * share) / sigma;
        assert!(deviation.abs() < 3.0, "{name}: {count} of {USERS} is {deviation:.1} sigma off");
    }
}

/// Prerequisites of the flags below: `up` serves a, `down` is killed and serves b.
pub(crate) struct Others;

impl Lookup for Others {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        let flag = compiled(key, &Flag { default_variant: Some("a".to_owned()), kill_variant: Some("b".to_owned()), ..plain() });
        matches!(key, "up" | "down").then(|| flag.with_kill(key == "down"))
    }
}

pub(crate) fn segments() -> Segments {
    let text = "segments: { s: { included: [k1], excluded: [k2], when: [{ attribute: x, exists: true }] }, t: { when: [{ segment: s, not: true }] } }";
    let document = Document::parse(text).unwrap();
    let (segments, problems) = Segments::compile(document.segments.iter().map(|(key, segment)| (key.as_str(), segment)));
    assert!(problems.is_empty(), "{problems}");
    segments
}

fn plain() -> Flag {
    let variants = ["a", "b", "c"].map(|name| (name.to_owned(), Value::String(name.to_owned())));
    Flag { variants: variants.into(), ..Flag::default() }
}

fn variant() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

/// Names and texts of which there are few, so that conditions hold now and then.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["x", "y", "z.w", "k1", "k2", "1.2.3", "2.0.0-rc.1", "10.0.0.1", "2026-11-21T09:00:00Z", "Ünï"]).prop_map(str::to_owned),
        1 => "\\PC{1,12}",
    ]
}

fn attribute() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "y", "z", "z.w", "targetingKey"]).prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![(-3..=3_i32).prop_map(f64::from), (-1e9..1e9_f64), Just(9_007_199_254_740_991.0)]
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![any::<bool>().prop_map(Scalar::Bool), number().prop_map(Scalar::Number), word().prop_map(Scalar::String)]
}

fn operator() -> impl Strategy<Value = Operator> {
    prop_oneof![
        scalar().prop_map(Operator::Equals),
        vec(scalar(), 0..12).prop_map(Operator::In),
        vec(word(), 1..4).prop_map(Operator::StartsWith),
        vec(word(), 1..4).prop_map(Operator::EndsWith),
        vec(word(), 1..4).prop_map(Operator::Contains),
        prop::sample::select(vec!["^x", "[0-9]+", "(?i)K1|é"]).prop_map(|pattern| Operator::Matches(pattern.to_owned())),
        number().prop_map(Operator::LessThan),
        number().prop_map(Operator::AtMost),
        number().prop_map(Operator::GreaterThan),
        number().prop_map(Operator::AtLeast),
        Just(Operator::Before("2026-11-21T09:00:00.5Z".to_owned())),
        Just(Operator::After("2020-01-01T00:00:00+02:00".to_owned())),
        prop::sample::select(vec![">=1.2.3", "<2.0.0, !=1.0.0"]).prop_map(|range| Operator::Semver(range.to_owned())),
        prop::sample::select(vec!["10.0.0.0/8", "::1"]).prop_map(|network| Operator::Cidr(vec![network.to_owned()])),
        any::<bool>().prop_map(Operator::Exists),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let test = prop_oneof![
        4 => (attribute(), operator()).prop_map(|(attribute, operator)| Test::Attribute { attribute, operator }),
        1 => prop::sample::select(vec!["s", "t"]).prop_map(|key| Test::Segment(key.to_owned())),
    ];
    (test, any::<bool>()).prop_map(|(test, not)| Condition { test, not })
}

fn split() -> impl Strategy<Value = Split> {
    let weights = prop_oneof![
        btree_map(
            variant(),
            prop_oneof![Just(Weight::Relative(0)), (1..100_u64).prop_map(|weight| Weight::Relative(weight * 10_000))],
            1..4
        ),
        (0..=BUCKETS).prop_map(|a| [("a".to_owned(), Weight::Percent(a)), ("b".to_owned(), Weight::Percent(BUCKETS - a))].into()),
    ];
    let hash = prop::sample::select(Hash::ALL.to_vec());
    (proptest::option::of(attribute()), proptest::option::of("[a-z]{1,40}"), hash, weights, proptest::option::of(variant()))
        .prop_map(|(by, salt, hash, weights, baseline)| Split { by, salt, hash, weights, baseline })
}

fn serve() -> impl Strategy<Value = Serve> {
    prop_oneof![variant().prop_map(Serve::Variant), split().prop_map(Serve::Split)]
}

pub(crate) fn flag() -> impl Strategy<Value = Flag> {
    let rule = (vec(condition(), 0..4), serve()).prop_map(|(when, serve)| Rule { name: None, description: None, when, serve });
    let prerequisite = (prop::sample::select(vec!["up", "down", "gone"]), btree_set(variant(), 1..3))
        .prop_map(|(flag, variants)| Prerequisite { flag: flag.to_owned(), variants });
    let target = (variant(), btree_set(word(), 0..3)).prop_map(|(variant, keys)| Target { variant, keys });
    let name = || proptest::option::weighted(0.7, variant());
    let state = prop_oneof![9 => Just(FlagState::Enabled), 1 => Just(FlagState::Disabled)];
    let names = (name(), name(), name(), proptest::option::weighted(0.2, split()));
    let lists = (vec(prerequisite, 0..2), vec(target, 0..2), vec(rule, 0..4));
    let limit = (1..=30 * 24 * 3_600_u64, variant()).prop_map(|(after_s, serve)| MaxStaleness { after_s, serve });
    let about = (proptest::option::of(word()), btree_set("[a-z]{1,8}", 0..3), proptest::option::weighted(0.2, limit));
    let lists = (lists, targeting());
    (state, names, lists, about).prop_map(|(state, names, lists, about)| {
        let (default_variant, off_variant, kill_variant, default_split) = names;
        let ((prerequisites, targets, rules), targeting) = lists;
        // A flag has one of the two.
        let rules = if targeting.is_some() { Vec::new() } else { rules };
        let (description, tags, max_staleness) = about;
        Flag {
            state,
            default_variant,
            off_variant,
            kill_variant,
            max_staleness,
            default_split,
            prerequisites,
            targets,
            rules,
            targeting,
            description,
            tags,
            ..plain()
        }
    })
}

/// Of flagd's rules one of each outcome: a variant, nothing, no variant, by the context and by a share.
fn targeting() -> impl Strategy<Value = Option<Json>> {
    let rules = vec![
        json!(null),
        json!({ "if": [{ "in": [{ "var": "x" }, ["x", "y", 1]] }, "a"] }),
        json!({ "if": [{ "var": "z.w" }, { "var": "z.w" }, "b"] }),
        json!({ "fractional": [["a", 1], ["b", 2], ["d", 1]] }),
        json!({ "fractional": [{ "var": "y" }, ["b", 1], ["c", { "if": [{ "var": "x" }, 1, 0] }]] }),
        json!({ "reduce": [{ "var": "x" }, { "cat": [{ "var": "accumulator" }, { "var": "current" }] }, ""] }),
    ];
    proptest::option::weighted(0.3, prop::sample::select(rules))
}

fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        number().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        word().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Json::from), inner.prop_map(|value| json!({ "w": value }))]
    })
}

pub(crate) fn context() -> impl Strategy<Value = Context> {
    (proptest::option::of(prop_oneof![word(), any::<String>()]), btree_map(attribute(), json_value(), 0..4))
        .prop_map(|(targeting_key, attributes)| Context { targeting_key, attributes: attributes.into_iter().collect() })
}
