//! What deciding and holding flags costs, in numbers that do not wobble: allocations and bytes.

use allocation_counter::measure;
use serde_json::json;
use yardarm::flag::{CompiledFlag, Context, Document, Flag, Lookup, NoFlags, SAMPLES, Segments, compile};

/// Every operator, a segment with many keys, a split, a target, a prerequisite.
const EVERYTHING: &str = r#"
segments:
  staff: { included: [ada, grace], excluded: [mallory], when: [{ attribute: email, endsWith: "@example.com" }] }
flags:
  base: { variants: { on: true, off: false }, defaultVariant: off, rules: [{ when: [{ attribute: plan, exists: true }], serve: on }] }
  full:
    variants: { v1: { prompt: a }, v2: { prompt: b } }
    defaultVariant: v1
    prerequisites: [{ flag: base, variants: [on] }]
    targets: [{ variant: v2, keys: [qa-1, qa-2, qa-3, qa-4, qa-5, qa-6, qa-7, qa-8, qa-9, qa-10] }]
    rules:
      - { when: [{ attribute: plan, equals: none }], serve: v2 }
      - { when: [{ attribute: plan, in: [a, b, c, d, e, f, g, h, i, j, k, 1, true] }], serve: v2 }
      - { when: [{ attribute: plan, startsWith: [x, y] }], serve: v2 }
      - { when: [{ attribute: plan, endsWith: x }], serve: v2 }
      - { when: [{ attribute: plan, contains: x }], serve: v2 }
      - { when: [{ attribute: age, lessThan: 1 }], serve: v2 }
      - { when: [{ attribute: age, atMost: 1 }], serve: v2 }
      - { when: [{ attribute: age, greaterThan: 100 }], serve: v2 }
      - { when: [{ attribute: age, atLeast: 100 }], serve: v2 }
      - { when: [{ attribute: since, before: 2020-01-01T00:00:00Z }], serve: v2 }
      - { when: [{ attribute: plan, after: 2020-01-01T00:00:00Z }], serve: v2 }
      - { when: [{ attribute: version, semver: ">3.0.0" }], serve: v2 }
      - { when: [{ attribute: plan, semver: ">3.0.0" }], serve: v2 }
      - { when: [{ attribute: ip, cidr: 10.0.0.0/8 }], serve: v2 }
      - { when: [{ attribute: plan, cidr: 10.0.0.0/8 }], serve: v2 }
      - { when: [{ attribute: plan, exists: false }], serve: v2 }
      - { when: [{ attribute: tags, equals: z }], serve: v2 }
      - { when: [{ segment: staff }], serve: v2 }
      - { name: by-number, when: [{ attribute: org, exists: true }], split: { by: org, weights: { v1: 1, v2: 1 } } }
      - { name: rollout, split: { weights: { v1: 1, v2: 99 } } }
  flagd:
    variants: { a: 1, b: 2, c: 3 }
    defaultVariant: a
    targeting:
      if:
        - { and: [{ starts_with: [{ var: email }, "nobody@"] }, { "!": { var: beta } }] }
        - a
        - { in: [{ var: plan }, [u, v, w, x, y, z]] }
        - b
        - { or: [{ sem_ver: [{ var: version }, "^", "3.0.0"] }, { ">=": [{ var: age }, 100] }, { "==": [{ var: "org.id" }, 7] }] }
        - c
        - { "<": [{ var: $flagd.timestamp }, 0] }
        - c
        - { fractional: [{ cat: [{ var: $flagd.flagKey }, { var: email }] }, [a, 25], [b, 25], [c, 25], [a, 1], [a, 1], [a, 1], [a, 1], [a, 1], [b, 20]] }
  flagd-by-key: { variants: { a: 1, b: 2 }, defaultVariant: a, targeting: { fractional: [[a, 1], [b, { if: [{ var: plan }, 3, 1] }]] } }
  flagd-second: { variants: { a: 1, b: 2 }, fractionalVersion: 2, targeting: { fractional: [[a], [b]] } }
  regex: { variants: { on: true, off: false }, defaultVariant: off, rules: [{ when: [{ attribute: email, matches: "^[a-z]+@.*[.]org$" }], serve: on }] }
"#;

struct Flags(Vec<CompiledFlag>);

impl Lookup for Flags {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.0.iter().find(|flag| flag.key() == key).cloned()
    }
}

fn flags(text: &str) -> Flags {
    let document = Document::parse(text).unwrap();
    let (segments, _) = Segments::compile(document.segments.iter().map(|(key, segment)| (key.as_str(), segment)));
    Flags(document.flags.iter().map(|(key, flag)| compile(key, flag, &segments).unwrap()).collect())
}

fn contexts() -> Vec<Context> {
    let full = Context::new("user-1")
        .with("plan", "pro")
        .with("age", 40)
        .with("since", "2024-01-01T00:00:00Z")
        .with("version", "2.3.0-beta.20260101.and-more")
        .with("ip", "192.168.0.1")
        .with("tags", json!(["x", "y"]))
        .with("email", "ada@example.org");
    vec![full.clone(), full.clone().with("org", 9_007_199_254_740_991_i64), Context { targeting_key: None, ..full }, Context::default()]
}

#[test]
fn deciding_allocates_nothing() {
    for flags in [flags(EVERYTHING), flags(SAMPLES)] {
        for flag in flags.0.iter().filter(|flag| flag.key() != "regex") {
            for context in contexts() {
                for is_killed in [false, true] {
                    let flag = flag.with_kill(is_killed);
                    let counted = measure(|| _ = std::hint::black_box(flag.decide(std::hint::black_box(&context), &flags)));
                    assert_eq!(counted.count_total, 0, "{} allocates for {context:?}", flag.key());
                }
            }
        }
    }
}

#[test]
fn the_document_of_the_test_reaches_its_last_rules() {
    let flags = flags(EVERYTHING);
    let full = flags.flag("full").unwrap();
    let rules: Vec<_> = contexts().iter().map(|context| full.decide(context, &flags).rule.map(str::to_owned)).collect();
    let expected = [Some("rollout"), Some("by-number"), Some("rollout"), None];
    assert_eq!(rules, expected.map(|rule| rule.map(str::to_owned)));
}

/// The engine takes its scratch space at the first use in a thread, and keeps it.
#[test]
fn a_regular_expression_allocates_once() {
    let flag = flags(EVERYTHING).flag("regex").unwrap();
    let context = &contexts()[0];
    assert_eq!(flag.decide(context, &NoFlags).rule, Some("rule-1"));
    let counted = measure(|| (0..100).for_each(|_| _ = std::hint::black_box(flag.decide(context, &NoFlags))));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_flag_of_six_hundred_bytes_takes_less_than_a_kilobyte_and_a_half() {
    let definition = json!({
        "description": "Which sales-email-007 prompt answers, version 17 of the rollout of spring",
        "owner": "growth",
        "tags": ["ai", "prompt"],
        "kind": "release",
        "variants": { "v2.2.1": "sales-email-007@2.2.1", "v2.3.0": "sales-email-007@2.3.0" },
        "defaultVariant": "v2.2.1",
        "killVariant": "v2.2.1",
        "rules": [
            { "name": "internal", "when": [{ "attribute": "cohort", "in": ["internal", "beta"] }, { "attribute": "country", "in": ["de", "fr", "it"] }], "serve": "v2.3.0" },
            { "name": "version", "when": [{ "attribute": "version", "semver": ">=2.3.0" }, { "attribute": "email", "endsWith": "@example.com" }], "serve": "v2.3.0" },
            { "name": "rollout", "split": { "weights": { "v2.3.0": 1, "v2.2.1": 99 } } }
        ]
    });
    let definition = definition.to_string();
    assert!((550..700).contains(&definition.len()), "{} bytes of JSON", definition.len());
    let flag = Flag::from_json(definition.as_bytes()).unwrap();
    let mut held = None;
    let counted = measure(|| held = compile("sales_email", &flag, &Segments::none()).ok());
    assert!(held.is_some());
    assert!(counted.bytes_current < 1_536, "{} bytes in {} pieces", counted.bytes_current, counted.count_current);
}
