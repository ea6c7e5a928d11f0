//! What is too much is refused at commit, with the limit in the message.

use yardarm::control::ledger::Error;
use yardarm::flag::limits;

use super::world::*;

async fn refused(world: &World, document: &str) -> String {
    match world.commit(apply(document)).await {
        Err(problems @ Error::Invalid(_)) => problems.to_string(),
        Err(other) => panic!("{other}"),
        Ok(committed) => panic!("taken at {}", committed.position),
    }
}

fn large(key: &str, bytes: usize) -> String {
    format!("{key}: {{ variants: {{ text: {} }}, defaultVariant: text }}", "x".repeat(bytes))
}

#[tokio::test]
async fn a_flag_that_is_too_large() {
    let world = World::new().await;
    world.apply(&format!("flags: {{ {} }}", large("a", limits::FLAG_BYTES - 1000))).await;
    let told = refused(&world, &format!("flags: {{ {} }}", large("a", limits::FLAG_BYTES))).await;
    assert!(told.contains(&limits::FLAG_BYTES.to_string()), "{told}");
}

#[tokio::test]
async fn an_environment_that_is_too_large_and_one_that_makes_room() {
    let world = World::new().await;
    const BYTES: usize = 250_000;
    let fit = limits::ENVIRONMENT_BYTES / (BYTES + 100);
    let some = |keys: std::ops::Range<usize>, bytes| {
        let flags: Vec<_> = keys.map(|n| large(&format!("f{n}"), bytes)).collect();
        format!("flags: {{ {} }}", flags.join(", "))
    };
    world.apply(&some(0..fit / 2, BYTES)).await;
    world.apply(&some(fit / 2..fit, BYTES)).await;
    let told = refused(&world, &some(fit..fit + 1, BYTES)).await;
    assert!(told.contains(&limits::ENVIRONMENT_BYTES.to_string()), "{told}");
    world.apply(&some(0..1, 10)).await;
    world.apply(&some(fit..fit + 1, BYTES)).await;
}

#[tokio::test]
async fn a_flag_too_many() {
    let world = World::new().await;
    let some = |keys: std::ops::Range<usize>| {
        let flags: Vec<_> = keys.map(|n| format!("f{n}: {{variants: {{x: 1}}, defaultVariant: x}}")).collect();
        format!("flags: {{ {} }}", flags.join(", "))
    };
    world.apply(&some(0..limits::ENVIRONMENT_FLAGS)).await;
    let told = refused(&world, &some(limits::ENVIRONMENT_FLAGS..limits::ENVIRONMENT_FLAGS + 1)).await;
    assert!(told.contains(&limits::ENVIRONMENT_FLAGS.to_string()), "{told}");
}

fn listed(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect::<Vec<_>>().join(", ")
}

/// A flag with these fields.
fn with(fields: &str) -> String {
    format!("flags: {{ a: {{ variants: {{ on: true }}, {fields} }} }}")
}

fn pattern(regex: &str) -> String {
    format!("{{ attribute: a, matches: '{regex}' }}")
}

/// A name for each, what is at most allowed, and a document that has so many.
type Limit = (&'static str, usize, fn(usize) -> String);

const LIMITS: &[Limit] = &[
    ("bytes of a key", limits::KEY_BYTES, |count| format!("flags: {{ {}: {{ variants: {{ on: true }} }} }}", "k".repeat(count))),
    ("rules", limits::RULES, |count| with(&format!("rules: [{}]", listed(count, |_| "{ serve: on }".into())))),
    ("conditions of a rule", limits::CONDITIONS, |count| {
        with(&format!("rules: [{{ serve: on, when: [{}] }}]", listed(count, |_| "{ attribute: a, exists: true }".into())))
    }),
    ("conditions of a segment", limits::CONDITIONS, |count| {
        format!("segments: {{ s: {{ when: [{}] }} }}", listed(count, |_| "{ attribute: a, exists: true }".into()))
    }),
    ("variants", limits::VARIANTS, |count| format!("flags: {{ a: {{ variants: {{ {} }} }} }}", listed(count, |n| format!("v{n}: {n}")))),
    ("tags", limits::TAGS, |count| with(&format!("tags: [{}]", listed(count, |n| format!("t{n}"))))),
    ("prerequisites", limits::PREREQUISITES, |count| {
        let flags = listed(count, |n| format!("p{n}: {{ variants: {{ on: true }} }}"));
        let wanted = listed(count, |n| format!("{{ flag: p{n}, variants: [on] }}"));
        format!("flags: {{ a: {{ variants: {{ on: true }}, prerequisites: [{wanted}] }}, {flags} }}")
    }),
    ("bytes of a regular expression", limits::REGEX_BYTES, |count| {
        with(&format!("rules: [{{ serve: on, when: [{}] }}]", pattern(&"x".repeat(count))))
    }),
    ("regular expressions of a flag", limits::REGEXES, |count| {
        with(&format!("rules: [{}]", listed(count, |n| format!("{{ serve: on, when: [{}] }}", pattern(&format!("^x{n}$"))))))
    }),
    ("keys of a segment", limits::SEGMENT_KEYS, |count| {
        format!("segments: {{ s: {{ included: [{}] }} }}", listed(count, |n| format!("u{n}")))
    }),
    ("levels of segments", limits::NESTING, |count| {
        let inner = |n| if n + 1 < count { format!("when: [{{ segment: s{} }}]", n + 1) } else { "included: [ana]".to_owned() };
        format!("segments: {{ {} }}", listed(count, |n| format!("s{n}: {{ {} }}", inner(n))))
    }),
    ("segments", limits::ENVIRONMENT_SEGMENTS, |count| format!("segments: {{ {} }}", listed(count, |n| format!("s{n}: {{}}")))),
];

#[tokio::test]
async fn what_is_allowed_is_taken_and_one_more_is_refused_with_the_limit() {
    for (name, most, document) in LIMITS {
        let world = World::new().await;
        let told = refused(&world, &document(most + 1)).await;
        assert!(told.contains(&most.to_string()), "{name}: {told}");
        world.apply(&document(*most)).await;
    }
}

/// A segment of 100 conditions, and one that reads it so many times.
fn nested_segments(times: usize) -> String {
    let conditions = listed(100, |_| "{ attribute: a, exists: true }".into());
    format!("segments: {{ s: {{ when: [{conditions}] }}, t: {{ when: [{}] }} }}", listed(times, |_| "{ segment: s }".into()))
}

#[tokio::test]
async fn conditions_are_counted_each_time_that_they_are_read() {
    let world = World::new().await;
    let told = refused(&world, &nested_segments(10)).await;
    assert!(told.contains("1010 conditions") && told.contains(&limits::SEGMENT_COST.to_string()), "{told}");
    world.apply(&nested_segments(9)).await;
    let flag = |times| with(&format!("rules: [{}]", listed(times, |_| "{ serve: on, when: [{ segment: t }] }".into())));
    let told = refused(&world, &flag(22)).await;
    assert!(told.contains("20020 conditions") && told.contains(&limits::FLAG_COST.to_string()), "{told}");
    world.apply(&flag(21)).await;
}

#[tokio::test]
async fn regular_expressions_that_are_large_together() {
    let world = World::new().await;
    let large = |count| listed(count, |_| pattern("\\pL{4}"));
    let flag = |count| with(&format!("rules: [{{ serve: on, when: [{}] }}]", large(count)));
    let segment = |count| format!("segments: {{ s: {{ when: [{}] }} }}", large(count));
    for document in [flag(90), segment(90)] {
        let told = refused(&world, &document).await;
        assert!(told.contains(&limits::REGEXES_COMPILED_BYTES.to_string()) && told.lines().count() == 2, "{told}");
    }
    world.apply(&flag(8)).await;
    world.apply(&segment(8)).await;
}
