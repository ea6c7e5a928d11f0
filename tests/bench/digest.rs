//! The digest of an environment: what a change costs, and what a snapshot of 10,000 flags does.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use yardarm::cli::bench::flags;
use yardarm::flag::{Digest, Flag, Item, ItemName};

fn digest(c: &mut Criterion) {
    let items: Vec<Item> = (0..10_000).map(item).collect();
    let whole = Digest::of(&items, []);
    c.bench_function("digest/one change", |b| {
        b.iter(|| {
            let mut digest = whole;
            digest.remove_item(black_box(&items[7]));
            digest.add_item(black_box(&items[8]));
            digest
        });
    });
    c.bench_function("digest/10k flags", |b| b.iter(|| Digest::of(black_box(&items), [])));
}

fn item(number: usize) -> Item {
    let flag = Flag::from_json(flags::definition(number).to_string().as_bytes()).expect("a realistic flag is a flag");
    Item { name: ItemName::flag(flags::key(number)), revision: 1, definition: Bytes::from(flag.to_canonical_json()) }
}

/// As in the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, digest);
criterion_main!(benches);
