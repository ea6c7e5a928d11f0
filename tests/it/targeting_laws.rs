//! Our JsonLogic against flagd's own engine in Rust, over generated rules and contexts.
//!
//! Rules are generated with operands of the types that operators are for, because what engines make of others they do not agree about
//! (flagd.md 2.2 names the daemon's as the truth, and ours follows that one). Left out, and why:
//! - Versions that are not written in full: this engine reads neither `v1.2.3` nor `1.2` nor a number, which flagd.md 2.2 says it must.
//! - Texts that look like dates or spans of time: this engine compares them as such, also by `===`.
//! - `merge` of nulls, which this engine drops.
//! - `substr` from beyond the text: all of it to the daemon, nothing to this engine.
//! - White space at the ends of what `cat` puts together, which the daemon drops and this engine keeps.
//! - Numbers as text by `cat`, where the last digits of a fraction may differ.

use flagd_evaluation_engine::Operator as Engine;
use open_feature::{EvaluationContext, EvaluationContextFieldValue as Field, Value as TheirValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value as Json, json};
use yardarm::flag::{Context, Decision, Document, NoFlags, Segments, compile};

const KEY: &str = "checkout";

fn op(name: &str, operands: impl IntoIterator<Item = Json>) -> Json {
    json!({ name: operands.into_iter().collect::<Vec<_>>() })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![select(vec!["x", "y", "xy", "", "Ünï", "a_b", "ana@example.com"]).prop_map(str::to_owned), "[g-zA-ZÄ-Ü]{1,6}"]
}

fn version() -> impl Strategy<Value = String> {
    (0..3_u8, 0..3_u8, 0..3_u8, select(vec!["", "-rc.1", "-rc.2", "-alpha"])).prop_map(|(a, b, c, pre)| format!("{a}.{b}.{c}{pre}"))
}

fn number() -> impl Strategy<Value = Json> {
    prop_oneof![(-4..=4_i64).prop_map(Json::from), (-8..=8_i32).prop_map(|eighths| json!(f64::from(eighths) / 8.0))]
}

fn text_rule() -> BoxedStrategy<Json> {
    let leaf = prop_oneof![
        texts().prop_map(Json::from),
        select(vec!["t", "u"]).prop_map(|name| json!({ "var": name })),
        Just(json!({ "var": ["missing", "y"] })),
        Just(json!({ "var": "$flagd.flagKey" })),
        Just(json!({ "var": ["targetingKey", ""] })),
        Just(json!({ "var": "o.inner" })),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(|parts| op("cat", parts)),
            // Within the text.
            (inner.clone(), -3..4_i32, proptest::option::of(-3..4_i32)).prop_map(|(text, from, length)| {
                let text = op("cat", ["abc".into(), text]);
                op("substr", [text, from.into()].into_iter().chain(length.map(Json::from)))
            }),
            (truth_of(inner.clone().boxed(), number_leaf()), inner.clone(), inner).prop_map(|(when, then, or)| op("if", [when, then, or])),
        ]
    })
    .boxed()
}

fn number_leaf() -> BoxedStrategy<Json> {
    prop_oneof![number(), select(vec!["n", "m"]).prop_map(|name| json!({ "var": name }))].boxed()
}

fn number_rule() -> BoxedStrategy<Json> {
    number_leaf()
        .prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                (select(vec!["+", "*", "min", "max"]), vec(inner.clone(), 2..4)).prop_map(|(name, parts)| op(name, parts)),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| op("-", [a, b])),
                (inner.clone(), 1..5_i32).prop_map(|(a, b)| op("/", [a, b.into()])),
                (-8..9_i32, 1..5_i32).prop_map(|(a, b)| op("%", [a.into(), b.into()])),
                Just(json!({ "reduce": [{ "var": "numbers" }, { "+": [{ "var": "accumulator" }, { "var": "current" }] }, 0] })),
            ]
        })
        .boxed()
}

fn list_rule() -> BoxedStrategy<Json> {
    let leaf = prop_oneof![Just(json!({ "var": "numbers" })), vec(number(), 0..4).prop_map(Json::from)];
    leaf.prop_recursive(1, 4, 2, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(|lists| op("merge", lists)),
            (inner.clone(), number()).prop_map(|(list, bound)| op("filter", [list, op("<", [json!({ "var": "" }), bound])])),
            (inner, number()).prop_map(|(list, by)| op("map", [list, op("+", [json!({ "var": "" }), by])])),
        ]
    })
    .boxed()
}

fn truth_of(text: BoxedStrategy<Json>, number: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    let size = || select(vec!["<", "<=", ">", ">="]);
    let same = || select(vec!["==", "!=", "===", "!=="]);
    prop_oneof![
        any::<bool>().prop_map(Json::from),
        Just(json!({ "var": "b" })),
        (same(), text.clone(), text.clone()).prop_map(|(name, a, b)| op(name, [a, b])),
        (same(), number.clone(), number.clone()).prop_map(|(name, a, b)| op(name, [a, b])),
        (size(), number.clone(), number.clone()).prop_map(|(name, a, b)| op(name, [a, b])),
        (size(), text.clone(), text.clone()).prop_map(|(name, a, b)| op(name, [a, b])),
        (select(vec!["<", "<="]), number.clone(), number.clone(), number.clone()).prop_map(|(name, a, b, c)| op(name, [a, b, c])),
        (select(vec!["starts_with", "ends_with", "in"]), text.clone(), text.clone()).prop_map(|(name, a, b)| op(name, [a, b])),
        (text.clone(), vec(texts(), 0..4)).prop_map(|(text, texts)| op("in", [text, json!(texts)])),
        (number, vec(self::number(), 0..4)).prop_map(|(number, numbers)| op("in", [number, json!(numbers)])),
        (version(), select(vec!["=", "!=", "<", "<=", ">", ">=", "^", "~"]), version())
            .prop_map(|(a, sign, b)| op("sem_ver", [a.into(), sign.into(), b.into()])),
        (select(vec!["=", "<", ">=", "~", "?"]), version())
            .prop_map(|(sign, b)| op("sem_ver", [json!({ "var": "v" }), sign.into(), b.into()])),
    ]
    .boxed()
}

fn of_any_type() -> impl Strategy<Value = Json> {
    select(vec!["t", "n", "b", "o", "numbers", "missing"]).prop_map(|name| json!({ "var": name }))
}

fn truth_rule() -> BoxedStrategy<Json> {
    let over_a_list = (select(vec!["some", "all", "none"]), list_rule(), number())
        .prop_map(|(name, list, bound)| op(name, [list, op("<", [json!({ "var": "" }), bound])]));
    // Of whatever type, where the format says what comes of it.
    let of_any = (select(vec!["starts_with", "ends_with", "===", "!==", "in"]), of_any_type(), texts(), number()).prop_map(
        |(name, value, text, number)| match name {
            "in" => op(name, [value, json!([text, "z"])]),
            "===" | "!==" => op(name, [value, number]),
            _ => op(name, [value, text.into()]),
        },
    );
    let scalar = select(vec![Json::Null, true.into(), false.into(), "x".into()]);
    let is_there = (select(vec!["===", "!=="]), of_any_type(), scalar).prop_map(|(name, value, other)| op(name, [value, other]));
    let truth_of_any = (select(vec!["!", "!!"]), of_any_type()).prop_map(|(name, value)| op(name, [value]));
    let missing =
        vec(select(vec!["t", "n", "missing", "o.inner", "o.other"]), 1..4).prop_map(|names| json!({ "!": [{ "missing": names }] }));
    let some_missing = (1..3_i32, vec(select(vec!["t", "missing", "gone"]), 1..4))
        .prop_map(|(needed, names)| json!({ "!!": [{ "missing_some": [needed, names] }] }));
    prop_oneof![6 => truth_of(text_rule(), number_rule()), 1 => of_any, 1 => is_there, 1 => truth_of_any, 1 => over_a_list, 1 => missing, 1 => some_missing]
        .prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 1..4).prop_map(|parts| op("and", parts)),
                vec(inner.clone(), 1..4).prop_map(|parts| op("or", parts)),
                inner.clone().prop_map(|one| op("!", [one])),
                inner.prop_map(|one| op("!!", [one])),
            ]
        })
        .boxed()
}

fn fractional() -> BoxedStrategy<Json> {
    let unit = prop_oneof![
        text_rule().prop_map(Some),
        number_rule().prop_map(Some),
        select(vec!["t", "n", "b", "o", "missing"]).prop_map(|name| Some(json!({ "var": name }))),
        any::<bool>().prop_map(|value| Some(value.into())),
        Just(None),
    ];
    let weight = prop_oneof![Just(None), (-1..100_i64).prop_map(|weight| Some(Json::from(weight))), Just(Some(json!({ "var": "w" })))];
    let bucket = (select(vec!["a", "b", "c"]), weight).prop_map(|(name, weight)| match weight {
        Some(weight) => json!([name, weight]),
        None => json!([name]),
    });
    (unit, vec(bucket, 1..4)).prop_map(|(unit, buckets)| op("fractional", unit.into_iter().chain(buckets))).boxed()
}

/// What gives a variant, or nothing.
fn rule() -> BoxedStrategy<Json> {
    let outcome = || prop_oneof![select(vec!["a", "b", "c"]).prop_map(Json::from), Just(Json::Null), fractional()];
    prop_oneof![
        1 => fractional(),
        4 => (truth_rule(), outcome(), outcome()).prop_map(|(when, then, or)| op("if", [when, then, or])),
        1 => (truth_rule(), outcome(), truth_rule(), outcome()).prop_map(|(one, then, other, or)| op("if", [one, then, other, or])),
    ]
    .boxed()
}

fn context() -> impl Strategy<Value = Context> {
    let key = proptest::option::of(prop_oneof![Just(String::new()), "[a-zÄ-Ü0-9]{1,12}"]);
    (key, [texts(), texts(), texts()], [number(), number()], any::<bool>(), vec(number(), 0..4), version(), 0..50_i64).prop_map(
        |(targeting_key, [t, u, inner], [n, m], b, numbers, v, w)| {
            let attributes = json!({ "t": t, "u": u, "n": n, "m": m, "b": b, "numbers": numbers, "v": v, "w": w, "o": { "inner": inner } });
            let Json::Object(attributes) = attributes else { return Context::default() };
            Context { targeting_key, attributes }
        },
    )
}

fn their_value(json: &Json) -> TheirValue {
    match json {
        Json::Bool(value) => TheirValue::Bool(*value),
        Json::Number(value) => value.as_i64().map_or_else(|| TheirValue::Float(value.as_f64().unwrap()), TheirValue::Int),
        Json::String(value) => TheirValue::String(value.clone()),
        Json::Array(elements) => TheirValue::Array(elements.iter().map(their_value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), their_value(value)));
            TheirValue::Struct(open_feature::StructValue { fields: fields.collect() })
        }
        Json::Null => panic!("no context here has a null"),
    }
}

#[test]
fn every_operator_gives_what_flagds_own_engine_gives() {
    let engine = Engine::new();
    proptest!(ProptestConfig { cases: 6_000, ..ProptestConfig::default() }, |(rule in rule(), contexts in vec(context(), 4))| {
        let document = json!({ "flags": { KEY: {
            "state": "ENABLED", "variants": { "a": 1, "b": 2, "c": 3, "none": 4 }, "defaultVariant": "none", "targeting": rule,
        } } });
        let document = Document::parse(&document.to_string()).unwrap();
        let flag = compile(KEY, &document.flags[KEY], &Segments::none()).unwrap();
        for context in &contexts {
            let mut theirs = EvaluationContext { targeting_key: context.targeting_key.clone(), ..EvaluationContext::default() };
            for (name, value) in &context.attributes {
                theirs.add_custom_field(name.clone(), Field::Struct(std::sync::Arc::new(their_value(value))));
            }
            let gave = engine.apply(KEY, &rule.to_string(), &theirs).map_err(|error| format!("{error:?}"));
            let Decision { variant, .. } = flag.decide(context, &NoFlags);
            let ours = variant.map(|variant| variant.name.clone());
            prop_assert_eq!(ours, gave.map(|name| Some(name.unwrap_or_else(|| "none".to_owned()))).unwrap(), "{}\n{:?}", rule, context);
        }
    });
}
