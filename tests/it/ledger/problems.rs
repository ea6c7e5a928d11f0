//! A document that is refused is refused with everything that is wrong with it, as `flag lint` would tell it.

use yardarm::control::ledger::{Command, Error};
use yardarm::flag::Problem;

use super::world::*;

async fn refused(world: &World, document: &str) -> Vec<Problem> {
    let command = Command::Apply { environment: ENVIRONMENT.into(), document: document.to_owned(), expect: None };
    match world.commit(command).await {
        Err(Error::Invalid(problems)) => problems.into_iter().collect(),
        Err(other) => panic!("{other}"),
        Ok(committed) => panic!("taken at {}", committed.position),
    }
}

fn places(problems: &[Problem]) -> Vec<(u32, &str)> {
    problems.iter().map(|problem| (problem.line.unwrap_or_default(), problem.path.as_str())).collect()
}

#[tokio::test]
async fn what_is_misspelt_hides_no_other_problem_and_makes_none() {
    let world = World::new().await;
    let document = r#"flags:
  checkout:
    variants: { on: true, off: false }
    defaultVarient: off
    offVariant: offf
    prerequisites: [ { flag: checkoutt, variants: [on] } ]
    rules:
      - when: [ { segment: stafff } ]
        serve: onn
      - when: [ { attribute: email, matches: "(" } ]
        split: { weights: { on: 1, maybe: 1 } }
  other:
    variants: { on: true, off: maybe }
    defaultVariant: off
segments:
  stafff: 5
"#;
    let problems = refused(&world, document).await;
    let expected = [
        (4, "flags.checkout.defaultVarient"),
        (5, "flags.checkout.offVariant"),
        (6, "flags.checkout.prerequisites[0].flag"),
        (9, "flags.checkout.rules[0].serve"),
        (10, "flags.checkout.rules[1].when[0].matches"),
        (11, "flags.checkout.rules[1].split.weights.maybe"),
        (13, "flags.other.variants.on"),
        (16, "segments.stafff"),
    ];
    assert_eq!(places(&problems), expected, "{problems:#?}");
    assert_eq!(world.revision(), 1);
}

#[tokio::test]
async fn names_are_looked_up_in_the_environment_too() {
    let world = World::new().await;
    let base = flag("base", "on", "");
    world.apply(&format!("flags: {{ {base} }}, segments: {{ staff: {{ included: [ana] }} }}")).await;
    let document = r#"flags:
  a:
    variants: { on: true, off: false }
    ownr: growth
    prerequisites: [ { flag: base, variants: [on] }, { flag: bose, variants: [on] } ]
    rules: [ { when: [ { segment: staff } ], serve: on }, { when: [ { segment: stuff } ], serve: on } ]
"#;
    let problems = refused(&world, document).await;
    let expected = [(4, "flags.a.ownr"), (5, "flags.a.prerequisites[1].flag"), (6, "flags.a.rules[1].when[0].segment")];
    assert_eq!(places(&problems), expected, "{problems:#?}");
}

#[tokio::test]
async fn a_name_that_leads_to_what_could_not_be_read_is_no_problem_of_its_own() {
    let world = World::new().await;
    let document = r#"flags:
  a: { variants: { on: true }, prerequisites: [ { flag: b, variants: [on] } ], rules: [ { when: [ { segment: s } ], serve: on } ] }
  b: 5
segments:
  s: nothing
"#;
    assert_eq!(places(&refused(&world, document).await), [(3, "flags.b"), (5, "segments.s")]);
    let document = "segmants:\n  s: { included: [ana] }\nflags:\n  a: { variants: { on: true }, rules: [ { when: [ { segment: s } ], serve: on } ] }\n";
    assert_eq!(places(&refused(&world, document).await), [(1, "segmants")]);
}

#[tokio::test]
async fn a_text_that_is_no_document_at_all_has_one_problem() {
    let world = World::new().await;
    assert_eq!(refused(&world, "flags: [").await.len(), 1);
    assert_eq!(refused(&world, "flags: { \"a key\": { variants: { on: true }, defaultVariant: off } }").await.len(), 1);
}
