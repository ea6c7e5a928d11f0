//! Whatever the rule and the context are: nothing panics, nothing takes long, and nothing counts but what the rule reads.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::context::{Context, TARGETING_KEY};
use super::super::decide::NoFlags;
use super::super::node::Node as Read;
use super::super::problem::{Path as Place, Problems};
use super::super::{Flag, Segments, compile};
use super::*;

fn compiled(rule: &Json, version: FractionalVersion) -> Result<Program, Problems> {
    let mut problems = Problems::default();
    let program = Program::compile(rule, version, Place::ROOT, &mut problems);
    problems.into_result(program)
}

fn operator() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "!",
        "!!",
        "!=",
        "!==",
        "%",
        "*",
        "+",
        "-",
        "/",
        "<",
        "<=",
        "==",
        "===",
        ">",
        ">=",
        "?:",
        "all",
        "and",
        "cat",
        "ends_with",
        "filter",
        "fractional",
        "if",
        "in",
        "map",
        "max",
        "merge",
        "min",
        "missing",
        "missing_some",
        "none",
        "or",
        "reduce",
        "sem_ver",
        "some",
        "starts_with",
        "substr",
        "var",
        "var",
        "var",
        "log",
    ])
}

fn name() -> impl Strategy<Value = &'static str> {
    let names =
        ["", "a", "b", "a.b", "a.0", "xs.1.a", ".a", "xs", "targetingKey", "$flagd.flagKey", "$flagd", "current", "accumulator", "..", "1"];
    prop::sample::select(names.to_vec())
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        4 => name().prop_map(Json::from),
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::from),
        2 => (-3..=3_i32).prop_map(Json::from),
        1 => any::<f64>().prop_map(Json::from),
        1 => "\\PC{0,8}".prop_map(Json::from),
        1 => prop::sample::select(vec!["1.2.3", "^", "=", "100", "b"]).prop_map(Json::from),
    ]
}

fn rule() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..5).prop_map(Json::from),
            1 => inner.clone(),
            5 => (operator(), vec(inner.clone(), 0..5)).prop_map(|(operator, operands)| json!({ operator: operands })),
            2 => name().prop_map(|name| json!({ "var": name })),
            1 => (operator(), inner).prop_map(|(operator, operand)| json!({ operator: operand })),
        ]
    })
}

fn context() -> impl Strategy<Value = Context> {
    let value = scalar().prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(prop::sample::select(vec!["a", "b", "0"]).prop_map(str::to_owned), inner, 0..3)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    });
    let attributes =
        prop::collection::btree_map(prop::sample::select(vec!["a", "b", "xs", "1", "current"]).prop_map(str::to_owned), value, 0..5);
    (prop::option::of("[a-c]{1,2}"), attributes).prop_map(|(targeting_key, attributes)| {
        let attributes: Map<String, Json> = attributes.into_iter().collect();
        Context { targeting_key, attributes }
    })
}

fn version() -> impl Strategy<Value = FractionalVersion> {
    prop::sample::select(FractionalVersion::ALL.to_vec())
}

fn result(program: &Program, context: &Context) -> String {
    program.result_in_words("flag", context, &NoFlags).unwrap_or_else(|Spent| "spent".to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn the_result_depends_on_nothing_but_what_the_rule_reads(rule in rule(), context in context(), version in version()) {
        let Ok(program) = compiled(&rule, version) else { return Ok(()) };
        let before = result(&program, &context);
        prop_assert_eq!(&result(&program, &context), &before);
        if program.reads_everything {
            return Ok(());
        }
        let read: Vec<&str> = program.reads().map(|name| name.as_str().split('.').next().unwrap()).collect();
        let mut alone = context;
        alone.attributes.retain(|name, _| read.contains(&name.as_str()));
        alone.attributes.insert("more".to_owned(), json!(["than", "was", { "asked": 0 }]));
        alone.targeting_key.take_if(|_| !read.contains(&TARGETING_KEY));
        prop_assert_eq!(result(&program, &alone), before, "{} reads {:?}", rule, read);
        if !program.reads_context() {
            prop_assert_eq!(result(&program, &Context::default()), result(&program, &alone));
        }
    }

    #[test]
    fn a_rule_decides_the_same_after_it_was_written_and_read(operator in operator(), operands in vec(rule(), 0..4), context in context(), version in version()) {
        let flag = Flag {
            variants: [("a".to_owned(), super::super::Value::Bool(true)), ("b".to_owned(), super::super::Value::Bool(false))].into(),
            targeting: Some(json!({ operator: operands })),
            fractional_version: version,
            ..Flag::default()
        };
        // Numbers beyond 2^53 are refused where a document is read.
        let Ok(flag) = Flag::from_json(&flag.to_canonical_json()) else { return Ok(()) };
        let read = Flag::from_json(&flag.to_canonical_json()).unwrap();
        prop_assert_eq!(&read, &flag);
        match (compile("f", &flag, &Segments::none()), compile("f", &read, &Segments::none())) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one.decide(&context, &NoFlags), other.decide(&context, &NoFlags)),
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            (one, other) => prop_assert!(false, "{one:?} and {other:?}"),
        }
    }
}

/// What one rule, one context each takes too many steps of.
#[test]
fn what_would_take_long_runs_out_of_steps() {
    let list = |length: usize| json!((0..length).collect::<Vec<_>>());
    let long = "x".repeat(60_000);
    for (rule, context) in [
        // A list as long as a context may have it, in itself.
        (
            json!({ "map": [{ "var": "xs" }, { "map": [{ "var": "" }, { "var": "" }] }] }),
            Context::default().with("xs", json!(vec![list(200); 60])),
        ),
        // Text that doubles.
        (
            json!({ "reduce": [{ "var": "xs" }, { "cat": [{ "var": "accumulator" }, { "var": "accumulator" }] }, "x"] }),
            Context::default().with("xs", list(100)),
        ),
        // A list that doubles.
        (
            json!({ "reduce": [{ "var": "xs" }, { "merge": [{ "var": "accumulator" }, { "var": "accumulator" }] }, { "merge": [1] }] }),
            Context::default().with("xs", list(100)),
        ),
        // A long text, searched again and again.
        (
            json!({ "filter": [{ "var": "xs" }, { "in": ["xy", { "var": "long" }] }] }),
            Context::default().with("xs", list(500)).with("long", long.as_str()),
        ),
        // Many paths, each of a list of its own.
        (
            json!({ "filter": [{ "var": "xs" }, { "var": { "cat": ["xs", ".", { "var": "" }] } }] }),
            Context::default().with("xs", list(3_000)),
        ),
    ] {
        let program = compiled(&rule, FractionalVersion::V3).unwrap();
        assert_eq!(result(&program, &context), "spent", "{rule}");
    }
}

#[test]
fn a_bomb_is_refused_with_its_place() {
    let nested = |levels: usize| (1..levels).fold(json!({ "var": "a" }), |inner, _| json!({ "!": inner }));
    assert!(compiled(&nested(64), FractionalVersion::V3).is_ok());
    let problems = compiled(&nested(65), FractionalVersion::V3).unwrap_err().to_string();
    assert!(problems.starts_with("!.!.!.") && problems.ends_with("found a value at level 65, expected at most 64 levels"), "{problems}");

    let wide = json!({ "or": vec![json!({ "var": "a" }); 2_000] });
    let problems = compiled(&wide, FractionalVersion::V3).unwrap_err().to_string();
    assert_eq!(problems, "or[1999]: found more than 2000 operations and operands, expected at most 2000");
    // A list that is spelled out is one, however long it is.
    assert!(compiled(&json!({ "in": [{ "var": "a" }, vec!["user"; 20_000]] }), FractionalVersion::V3).is_ok());

    let deep = json!({ "map": [[1], { "filter": [[1], { "some": [[1], true] }] }] });
    let problems = compiled(&deep, FractionalVersion::V3).unwrap_err().to_string();
    assert_eq!(
        problems,
        "map[1].filter[1].some: found operators over lists within one another, 3 levels, expected at most 2 of map, filter, reduce, all, some and none"
    );
}

/// Entries that name two others each, thirty times: a billion if they were written out.
#[test]
fn references_that_multiply_are_refused() {
    let entries: String = (0..30).map(|at| format!("e{at}: {{ or: [{{ $ref: e{0} }}, {{ $ref: e{0} }}] }}, ", at + 1)).collect();
    let text = format!(
        "{{ flags: {{ a: {{ variants: {{ on: 1 }}, targeting: {{ if: [{{ $ref: e0 }}, on] }} }} }}, $evaluators: {{ {entries}e30: 1 }} }}"
    );
    let problems = super::super::Document::parse(&text).unwrap_err().to_string();
    assert!(problems.starts_with("flags.a.targeting.if[0]") && problems.contains("larger than a flag may be"), "{problems}");
}

#[test]
fn a_rule_from_text_is_read_as_deep_as_it_may_be() {
    let text = format!("{}1{}", "{\"!\":[".repeat(40), "]}".repeat(40));
    assert!(Read::from_json(text.as_bytes()).is_ok());
    let flag = format!("{{\"variants\":{{\"a\":1}},\"targeting\":{text}}}");
    let problems = Flag::from_json(flag.as_bytes()).unwrap_err().to_string();
    assert!(problems.contains("at most 64 levels"), "{problems}");
}
