//! The JSON Schema against the reader: what one takes the other takes, and what one refuses for its shape the other refuses.

use serde_json::{Map, Value as Json, json};
use yardarm::flag::{Document, SAMPLES, schema};

/// Reads YAML as JSON, without our own reader.
fn yaml(text: &str) -> Json {
    serde_yaml_ng::from_str(text).unwrap()
}

#[test]
fn the_sample_flags_are_valid() {
    assert_eq!(problems(&yaml(SAMPLES)), Vec::<String>::new());
}

#[test]
fn what_the_reader_writes_is_valid() {
    let document = Document::parse(EVERY_KEY).unwrap();
    assert_eq!(problems(&yaml(EVERY_KEY)), Vec::<String>::new());
    assert_eq!(problems(&document.to_json()), Vec::<String>::new());
}

#[test]
fn the_document_with_every_key_has_every_key() {
    let text = EVERY_KEY;
    let schema = schema();
    for definition in [
        "flag",
        "prerequisite",
        "target",
        "rule",
        "split",
        "condition",
        "segment",
        "metric",
        "margin",
        "guard",
        "rollout",
        "template",
        "parameter",
        "instance",
        "stage",
        "start",
        "gate",
        "approval",
        "fullCheck",
        "sampleRatio",
    ] {
        for key in schema["$defs"][definition]["properties"].as_object().unwrap().keys() {
            assert!(text.contains(&format!("{key}:")), "{definition}.{key} is in no test");
        }
    }
}

const EVERY_KEY: &str = r#"
$schema: https://yardarm.dev/schema/v1/flags.json
metadata: { flagSetId: test, version: 3, live: true }
$evaluators: { staff: { in: [a, b] } }
segments:
  staff: { description: d, included: [ada], excluded: [eve], when: [{ attribute: email, endsWith: "@example.com" }] }
templates:
  t:
    description: d
    parameters: { share: { default: 5, description: Percent }, event: }
    metrics: { errors: { kind: binomial, event: $(event), direction: lower, margin: { absolute: 0.01 } } }
    guard: [ { metric: errors, above: 0.05 } ]
    rollout: { baseline: $(baseline), treatments: [ $(treatment) ], stages: [ { percent: $(share) }, { percent: 100 } ] }
flags:
  by_template:
    variants: { on: true, off: false }
    defaultVariant: off
    defaultSplit: { weights: { on: 0, off: 100 } }
    rollout: { template: t, with: { event: failed } }
  base: { variants: { on: true, off: false } }
  full:
    description: d
    owner: o
    tags: [a, b]
    kind: kill-switch
    expectedLifetime: 6w
    state: DISABLED
    variants: { a: { deep: [1, { x: null }] }, b: {} }
    defaultVariant: a
    defaultSplit: { by: org.id, salt: s, hash: metro, weights: { a: 12.5%, b: 87.5% }, baseline: a }
    offVariant: a
    killVariant: b
    maxStaleness: { after: 5m, serve: a }
    prerequisites: [{ flag: base, variants: [on] }]
    targets: [{ variant: a, keys: [ada] }]
    targeting: {}
    fractionalVersion: 2
    metadata: { team: x }
    source: a.json
    metrics:
      errors: { kind: binomial, direction: lower, margin: { absolute: 0.01 }, minUnits: 200, onFail: pause, expected: 0.01 }
      score: { kind: mean, clip: [0, 10.5], direction: higher, event: rated, margin: { relative: 0.05 }, mode: no_harm, lag: 24h }
      slow: { kind: slow_share, above: 250, direction: lower }
      failed_calls: { kind: ratio, direction: none }
    guard:
      - { name: too-many, metric: errors, above: 0.05 }
      - { metric: errors, worse: { relative: 0.5 } }
      - { name: low, metric: errors, below: 0.9, attributable: true }
    rollout:
      baseline: a
      treatments: [b]
      retention: 30d
      coolDown: 10m
      unitsPerDay: 50000
      alphaOnRetry: halve
      stages:
        - { name: canary, percent: 1, bake: 2d, deadline: 4d, onDeadline: extend, gates: [{ approval: { by: [ana], count: 1 } }] }
        - weights: { b: 12.5% }
          start: { after: 2d }
          gates: [{ metrics: [errors, { metric: score, mode: superior, margin: { absolute: 1 }, minUnits: 9, onFail: pause }] }]
        - { percent: 100%, start: { at: 2026-11-21T09:00:00Z }, gates: [{ comparison: score }, { sampleRatio: { alpha: 0.01, coverage: true } }] }
    rules:
      - { name: n, description: d, when: [{ segment: staff, not: true }], serve: a }
      - { split: { weights: { a: 1, b: 2.5 } } }
      - when:
        - { attribute: v, equals: 1 }
        - { attribute: v, in: [a, 1, true] }
        - { attribute: v, startsWith: a }
        - { attribute: v, endsWith: [a, b] }
        - { attribute: v, contains: a }
        - { attribute: v, matches: a }
        - { attribute: v, lessThan: 1 }
        - { attribute: v, atMost: 1 }
        - { attribute: v, greaterThan: 1 }
        - { attribute: v, atLeast: 1 }
        - { attribute: v, before: 2026-11-21T09:00:00Z }
        - { attribute: v, after: 2026-11-21T09:00:00Z }
        - { attribute: v, semver: ">=1.0.0" }
        - { attribute: v, cidr: 10.0.0.0/8 }
        - { attribute: v, exists: false }
        serve: b
"#;

/// Each: where, and what is put there. Both refuse it.
#[test]
fn what_the_reader_refuses_for_its_shape_the_schema_refuses() {
    let rule = "/flags/full/rules";
    for (place, value) in [
        ("/unknown", json!(1)),
        ("/flags/full/targeting", json!(["a"])),
        ("/flags/full/fractionalVersion", json!(4)),
        ("/flags/full/fractionalVersion", json!("3")),
        ("/templates", json!([])),
        ("/templates/t", json!({})),
        ("/templates/t/unknown", json!(1)),
        ("/templates/t/rollout", json!("other")),
        ("/templates/t/rollout", json!({ "template": "other" })),
        ("/templates/t/parameters/no-name", json!(null)),
        ("/templates/t/parameters/share", json!({ "default": {} })),
        ("/flags/by_template/rollout", json!({ "template": "t", "with": { "event": {} } })),
        ("/flags/by_template/rollout", json!({ "with": {} })),
        ("/flags/by_template/rollout/unknown", json!(1)),
        ("/flags/a b", json!({ "variants": { "on": true } })),
        ("/flags/full", json!(1)),
        ("/flags/full/unknown", json!(1)),
        ("/flags/full/guard", json!({})),
        ("/flags/full/guard/0", json!({ "metric": "errors" })),
        ("/flags/full/guard/0", json!({ "metric": "errors", "above": 0.1, "below": 0.9 })),
        ("/flags/full/guard/0/above", json!(5)),
        ("/flags/full/guard/1/worse", json!(0.1)),
        ("/flags/full/guard/1/attributable", json!(true)),
        ("/flags/full/guard/0/attributable", json!("yes")),
        ("/flags/full/rollout", json!({})),
        ("/flags/full/rollout/stages", json!([])),
        ("/flags/full/rollout/treatments", json!([])),
        ("/flags/full/rollout/retention", json!("a month")),
        ("/flags/full/rollout/unitsPerDay", json!(0)),
        ("/flags/full/rollout/alphaOnRetry", json!("third")),
        ("/flags/full/rollout/alphaOnRetry", json!(0.5)),
        ("/flags/full/rollout/stages/0", json!({ "bake": "1d" })),
        ("/flags/full/rollout/stages/0", json!({ "percent": 1, "weights": { "b": 1 } })),
        ("/flags/full/rollout/stages/0/percent", json!(101)),
        ("/flags/full/rollout/stages/0/bake", json!("5")),
        ("/flags/full/rollout/stages/0/onDeadline", json!("ship")),
        ("/flags/full/rollout/stages/0/gates/0", json!({})),
        ("/flags/full/rollout/stages/0/gates/0", json!({ "approval": {}, "comparison": "errors" })),
        ("/flags/full/rollout/stages/0/gates/0/approval/count", json!(0)),
        ("/flags/full/rollout/stages/1/start", json!({ "after": "1d", "at": "2026-11-21T09:00:00Z" })),
        ("/flags/full/rollout/stages/1/start", json!({ "at": "tomorrow" })),
        ("/flags/full/rollout/stages/1/gates/0/metrics", json!([])),
        ("/flags/full/rollout/stages/2/gates/1/sampleRatio/alpha", json!(0.5)),
        ("/flags/full/metrics/errors", json!({ "kind": "binomial" })),
        ("/flags/full/metrics/errors/kind", json!("count")),
        ("/flags/full/metrics/errors/margin", json!(0.02)),
        ("/flags/full/metrics/errors/margin", json!({ "relative": 0.1, "absolute": 0.1 })),
        ("/flags/full/metrics/errors/margin", json!({ "relative": 1 })),
        ("/flags/full/metrics/score/clip", json!([0])),
        ("/flags/full/kind", json!("temporary")),
        ("/flags/full/state", json!("enabled")),
        ("/flags/full/expectedLifetime", json!("soon")),
        ("/flags/full/expectedLifetime", json!("0d")),
        ("/flags/full/variants", json!({})),
        ("/flags/full/variants/a", json!([1])),
        ("/flags/full/variants/a", json!(null)),
        ("/flags/full/variants/a", json!(9_007_199_254_740_993_u64)),
        ("/flags/full/owner", json!(7)),
        ("/flags/full/tags", json!(["a", "a"])),
        ("/flags/full/tags", json!([""])),
        ("/flags/full/maxStaleness", json!("5m")),
        ("/flags/full/maxStaleness", json!({ "after": "5m" })),
        ("/flags/full/maxStaleness", json!({ "serve": "a" })),
        ("/flags/full/maxStaleness/after", json!(300)),
        ("/flags/full/maxStaleness/after", json!("5 m")),
        ("/flags/full/maxStaleness/after", json!("1w")),
        ("/flags/full/maxStaleness/after", json!("-5m")),
        ("/flags/full/maxStaleness/then", json!("b")),
        ("/flags/full/prerequisites/0/variants", json!([])),
        ("/flags/full/prerequisites/0/variant", json!("on")),
        ("/flags/full/targets/0/variant", json!(1)),
        ("/flags/full/targets/0/keys", json!("ada")),
        ("/flags/full/metadata/x", json!([])),
        (&format!("{rule}/0/serve"), json!(true)),
        (&format!("{rule}/0"), json!({ "name": "nothing" })),
        (&format!("{rule}/0"), json!({ "serve": "a", "split": { "weights": { "a": 1 } } })),
        (&format!("{rule}/1/split"), json!({})),
        (&format!("{rule}/1/split/hash"), json!("sha1")),
        (&format!("{rule}/1/split/weights/a"), json!(-1)),
        (&format!("{rule}/1/split/weights/a"), json!("12.34567%")),
        (&format!("{rule}/1/split/weights/a"), json!("half")),
        (&format!("{rule}/2/when/0"), json!({ "attribute": "v" })),
        (&format!("{rule}/2/when/0"), json!({ "equals": 1 })),
        (&format!("{rule}/2/when/0"), json!({ "attribute": "v", "equals": 1, "atLeast": 1 })),
        (&format!("{rule}/2/when/0"), json!({ "attribute": "v", "equals": 1, "segment": "staff" })),
        (&format!("{rule}/2/when/0/attribute"), json!("")),
        (&format!("{rule}/2/when/0/equals"), json!([1])),
        (&format!("{rule}/2/when/1/in"), json!("a")),
        (&format!("{rule}/2/when/2/startsWith"), json!("")),
        (&format!("{rule}/2/when/6/lessThan"), json!("1")),
        (&format!("{rule}/2/when/14/exists"), json!("yes")),
        (&format!("{rule}/2/when/14/not"), json!("yes")),
        ("/segments/staff/unknown", json!(1)),
        ("/segments/staff/included", json!([1])),
        ("/segments/staff/excluded", json!(["eve", "eve"])),
    ] {
        let mut document = yaml(EVERY_KEY);
        put(&mut document, place, value.clone());
        assert!(!problems(&document).is_empty(), "the schema takes {place} = {value}");
        assert!(Document::parse(&document.to_string()).is_err(), "the reader takes {place} = {value}");
    }
}

fn put(document: &mut Json, place: &str, value: Json) {
    let (parent, name) = place.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Json::Object(fields) => _ = fields.insert(name.to_owned(), value),
        Json::Array(elements) => elements[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no {name}"),
    }
}

fn problems(document: &Json) -> Vec<String> {
    let root = schema();
    let mut problems = Vec::new();
    check(document, &root, &root, String::new(), &mut problems);
    problems
}

/// As much of JSON Schema as ours uses; a keyword that is not known here fails, so that none is passed over.
fn check(value: &Json, schema: &Json, root: &Json, path: String, problems: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        let is_fine = match keyword.as_str() {
            "title" | "description" | "default" | "$id" | "$schema" | "$defs" | "format" => true,
            "$ref" => {
                check(value, root.pointer(wanted.as_str().unwrap().trim_start_matches('#')).unwrap(), root, path.clone(), problems);
                true
            }
            "type" => is_of_type(value, wanted.as_str().unwrap()),
            "enum" => wanted.as_array().unwrap().contains(value),
            "anyOf" => count_valid(value, wanted, root) > 0,
            "not" => count_valid(value, &json!([wanted]), root) == 0,
            "oneOf" => count_valid(value, wanted, root) == 1,
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    value.get(name).iter().for_each(|value| check(value, schema, root, format!("{path}/{name}"), problems));
                }
                true
            }
            "additionalProperties" => {
                let empty = Map::new();
                let known = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
                let more: Vec<_> = value.as_object().into_iter().flatten().filter(|(name, _)| !known.contains_key(*name)).collect();
                if wanted.is_object() {
                    more.iter().for_each(|(name, value)| check(value, wanted, root, format!("{path}/{name}"), problems));
                }
                wanted.is_object() || more.is_empty()
            }
            "propertyNames" => {
                let names = value.as_object().into_iter().flatten().map(|(name, _)| Json::from(name.as_str()));
                names.for_each(|name| check(&name, wanted, root, format!("{path}/{name}"), problems));
                true
            }
            "required" => value
                .as_object()
                .is_none_or(|fields| wanted.as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap()))),
            "items" => {
                let elements = value.as_array().into_iter().flatten().enumerate();
                elements.for_each(|(index, element)| check(element, wanted, root, format!("{path}/{index}"), problems));
                true
            }
            "minItems" => value.as_array().is_none_or(|elements| elements.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|elements| elements.len() as u64 <= wanted.as_u64().unwrap()),
            "uniqueItems" => {
                value.as_array().is_none_or(|elements| (1..elements.len()).all(|index| !elements[..index].contains(&elements[index])))
            }
            "minProperties" => value.as_object().is_none_or(|fields| fields.len() as u64 >= wanted.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(|fields| fields.len() as u64 <= wanted.as_u64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= wanted.as_u64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= wanted.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| regex::Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text)),
            "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= wanted.as_f64().unwrap()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > wanted.as_f64().unwrap()),
            "exclusiveMaximum" => value.as_f64().is_none_or(|number| number < wanted.as_f64().unwrap()),
            unknown => panic!("the validator of this test does not know {unknown:?}"),
        };
        if !is_fine {
            problems.push(format!("{path}: {keyword} {wanted}"));
        }
    }
}

fn count_valid(value: &Json, schemas: &Json, root: &Json) -> usize {
    let is_valid = |schema: &&Json| {
        let mut problems = Vec::new();
        check(value, schema, root, String::new(), &mut problems);
        problems.is_empty()
    };
    schemas.as_array().unwrap().iter().filter(is_valid).count()
}

fn is_of_type(value: &Json, wanted: &str) -> bool {
    match value {
        Json::Null => wanted == "null",
        Json::Bool(_) => wanted == "boolean",
        Json::Number(number) => wanted == "number" || (wanted == "integer" && !number.is_f64()),
        Json::String(_) => wanted == "string",
        Json::Array(_) => wanted == "array",
        Json::Object(_) => wanted == "object",
    }
}
