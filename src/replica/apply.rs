//! Compiling what came, before any of it becomes visible. One definition that does not compile, or that makes the compiler panic, is
//! told by name; the others go on.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::flag::limits::FLAG_BYTES;
use crate::flag::{CompiledFlag, Flag, Item, Naming, Segments, compile_named, overridden};

pub(super) struct Compiled {
    pub(super) item: Item,
    pub(super) result: Result<Body, String>,
}

/// What is kept of a definition that compiles.
pub(super) enum Body {
    Flag(Box<CompiledFlag>),
    /// It will be compiled again when somebody asks for it, see [`super::slot`].
    Cold,
}

/// From so many flags on, those of an environment that compile quickly are kept cold. With fewer it saves nothing that anybody would see.
pub(super) const COLD_FROM: usize = 1_000;

/// A definition that compiles in a few microseconds and that nothing else must know of: who has prerequisites, reads segments or limits its
/// age is on lists of the writer.
const QUICK_BYTES: usize = 4 * 1024;

pub(super) fn may_be_cold(flag: &CompiledFlag, definition: &[u8]) -> bool {
    definition.len() <= QUICK_BYTES && flag.stands_alone() && flag.max_age_ms().is_none() && !flag.has_regex()
}

/// Below this, threads cost more than they save.
const WORTH_A_THREAD: usize = 256;

/// On as many threads as pay. Of many flags, those that may be are left cold at once, so that the compiled ones are never there together.
pub(super) fn compile_all(naming: Naming, items: Vec<Item>, segments: &Segments) -> Vec<Compiled> {
    let cold = items.len() >= COLD_FROM;
    let compile_one = |item: Item| {
        let flag = compile_definition(naming, &item.name.key, &item.definition, segments);
        let result = flag.map(|flag| if cold && may_be_cold(&flag, &item.definition) { Body::Cold } else { Body::Flag(Box::new(flag)) });
        Compiled { item, result }
    };
    let in_turn = |items: Vec<Item>| items.into_iter().map(compile_one).collect();
    // Asking for the cores reads files of the cgroup, which takes longer than compiling one flag.
    if items.len() < 2 * WORTH_A_THREAD {
        return in_turn(items);
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(items.len() / WORTH_A_THREAD);
    if threads < 2 {
        return in_turn(items);
    }
    let mut parts: Vec<Vec<Item>> = Vec::with_capacity(threads);
    let mut rest = items;
    for left in (1..=threads).rev() {
        let tail = rest.split_off(rest.len().div_ceil(left));
        parts.push(std::mem::replace(&mut rest, tail));
    }
    thread::scope(|scope| {
        let workers: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| part.into_iter().map(compile_one).collect::<Vec<_>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

/// A panic is a bug of ours, and no reason to stop serving the other flags.
pub(super) fn compile_definition(naming: Naming, key: &str, definition: &[u8], segments: &Segments) -> Result<CompiledFlag, String> {
    guarded(|| {
        if definition.len() > FLAG_BYTES {
            return Err(format!("the definition has {} bytes, at most {FLAG_BYTES} are allowed", definition.len()));
        }
        let flag = Flag::from_json_named(naming, definition).map_err(|problems| problems.to_string())?;
        compile_named(naming, overridden::key(key), &flag, segments).map_err(|problems| problems.to_string())
    })
}

pub(super) fn guarded<T>(compile: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compile))
        .unwrap_or_else(|_| Err("the compiler panicked; this is a fault of yardarm, please report it".to_owned()))
}
