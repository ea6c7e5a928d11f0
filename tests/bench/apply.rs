//! Applying changes to a replica of 10,000 realistic flags: one flag (bar: 50 us), one kill, and the whole state.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use yardarm::cli::bench::flags;
use yardarm::clock::SystemClock;
use yardarm::flag::{Delta, Digest, Flag, Item, ItemName, Kill, Position, State};
use yardarm::replica::{Replica, Writer};

const FLAGS: usize = 10_000;
const EPOCH: u64 = 1;

fn one_flag(c: &mut Criterion) {
    let state = state();
    let mut writer = filled(&state);
    // The control plane's side of it: what each change starts from.
    let (mut items, mut revision, mut digest) = (state.items, state.position.revision, state.digest);
    c.bench_function("apply/one flag among 10k", |b| {
        b.iter_batched(
            || {
                let number = revision as usize * 7919 % FLAGS;
                digest.remove_item(&items[number]);
                items[number] = item(number, revision + 1);
                digest.add_item(&items[number]);
                revision += 1;
                Delta {
                    epoch: EPOCH,
                    prev_revision: revision - 1,
                    revision,
                    upserts: vec![items[number].clone()],
                    digest,
                    ..Delta::default()
                }
            },
            |delta| writer.apply_delta(black_box(delta)).expect("the change follows"),
            BatchSize::SmallInput,
        );
    });
}

fn one_kill(c: &mut Criterion) {
    let state = state();
    let mut writer = filled(&state);
    let mut revision = state.position.revision;
    c.bench_function("apply/one kill among 10k", |b| {
        b.iter_batched(
            || {
                revision += 1;
                let (actor, reason) = ("bench".to_owned(), "measure".to_owned());
                Kill { flag_key: flags::key(7), revision, killed: revision.is_multiple_of(2), actor, reason, at_us: 0 }
            },
            |kill| writer.apply_kill(EPOCH, black_box(kill)),
            BatchSize::SmallInput,
        );
    });
}

fn whole_state(c: &mut Criterion) {
    let state = state();
    let mut group = c.benchmark_group("apply");
    group.sample_size(10);
    group.bench_function("snapshot of 10k", |b| b.iter_batched(|| state.clone(), |state| filled(&state), BatchSize::PerIteration));
    group.finish();
}

fn state() -> State {
    let items: Vec<Item> = (0..FLAGS).map(|number| item(number, 1)).collect();
    let digest = Digest::of(&items, []);
    State { position: Position { epoch: EPOCH, revision: 1 }, items, digest, ..State::default() }
}

fn item(number: usize, revision: u64) -> Item {
    let mut definition = flags::definition(number);
    definition["description"] = format!("Revision {revision}").into();
    let flag = Flag::from_json(definition.to_string().as_bytes()).expect("a realistic flag is a flag");
    Item { name: ItemName::flag(flags::key(number)), revision, definition: Bytes::from(flag.to_canonical_json()) }
}

fn filled(state: &State) -> Writer {
    let (_, mut writer) = Replica::new(Arc::new(SystemClock::new()));
    let applied = writer.apply_snapshot(state.clone()).expect("the state is whole");
    assert!(applied.rejected.is_empty(), "a realistic flag was rejected: {:?}", applied.rejected);
    writer
}

/// As in the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, one_flag, one_kill, whole_state);
criterion_main!(benches);
