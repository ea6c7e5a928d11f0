//! Compiling what came, before any of it becomes visible. One definition that does not compile, or that makes the compiler panic, is
//! told by name; the others go on.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::flag::limits::FLAG_BYTES;
use crate::flag::{CompiledFlag, Flag, Item, Segments, compile};

pub(super) struct Compiled {
    pub(super) item: Item,
    pub(super) result: Result<CompiledFlag, String>,
}

/// Below this, threads cost more than they save.
const WORTH_A_THREAD: usize = 256;

/// On as many threads as pay: a restart with ten thousand flags has to answer within 50 ms.
pub(super) fn compile_all(items: Vec<Item>, segments: &Segments) -> Vec<Compiled> {
    let in_turn = |items: Vec<Item>| items.into_iter().map(|item| compile_one(item, segments)).collect();
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
        let workers: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(|| part.into_iter().map(|item| compile_one(item, segments)).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

fn compile_one(item: Item, segments: &Segments) -> Compiled {
    let result = guarded(|| {
        if item.definition.len() > FLAG_BYTES {
            return Err(format!("the definition has {} bytes, at most {FLAG_BYTES} are allowed", item.definition.len()));
        }
        let flag = Flag::from_json(&item.definition).map_err(|problems| problems.to_string())?;
        compile(&item.name.key, &flag, segments).map_err(|problems| problems.to_string())
    });
    Compiled { item, result }
}

/// A panic is a bug of ours, and no reason to stop serving the other flags.
pub(super) fn guarded<T>(compile: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compile))
        .unwrap_or_else(|_| Err("the compiler panicked; this is a fault of yardarm, please report it".to_owned()))
}
