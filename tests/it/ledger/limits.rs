//! What is too much is refused at commit, with the limit in the message.

use yardarm::control::ledger::Error;
use yardarm::flag::limits;

use super::world::*;

async fn refused(world: &World, document: &str) -> String {
    match world.commit(apply(document)).await {
        Err(Error::Invalid(problems)) => problems.to_string(),
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
