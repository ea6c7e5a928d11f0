//! What a decision costs: one flag asked again and again, flags at random out of 10,000, and what it takes to have them.
//!
//! `cargo bench --profile dist --bench decide`. Beside peers on the same flag: `tests/bench/peers`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use yardarm::cli::bench::flags;
use yardarm::flag::{Attribute, Attributes, CompiledFlag, Context, Flag, NoFlags, Segments, compile};

const FLAGS: usize = 10_000;
/// As many as fit into the second cache, so that it is the flags that are cold.
const USERS: usize = 256;

fn decide(c: &mut Criterion) {
    let definitions: Vec<Vec<u8>> = (0..FLAGS).map(|number| flags::definition(number).to_string().into_bytes()).collect();
    let compiled: Vec<CompiledFlag> = definitions.iter().enumerate().map(|(number, json)| compiled(number, json)).collect();
    let users: Vec<Context> = (0..USERS).map(flags::context).collect();
    let borrowed: Vec<Borrowed<'_>> = users.iter().map(Borrowed::of).collect();

    c.bench_function("decide/hot, borrowed context", |b| {
        let mut user = 0;
        b.iter(|| {
            user = (user + 1) % USERS;
            black_box(black_box(&compiled[7]).decide(&borrowed[user], &NoFlags).bucket)
        });
    });
    c.bench_function("decide/hot, owned context", |b| {
        let mut user = 0;
        b.iter(|| {
            user = (user + 1) % USERS;
            black_box(black_box(&compiled[7]).decide(&users[user], &NoFlags).bucket)
        });
    });
    c.bench_function("decide/random of 10k flags, borrowed context", |b| {
        let mut random = 88_172_645_463_325_252_u64;
        b.iter(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            black_box(compiled[random as usize % FLAGS].decide(&borrowed[random as usize / FLAGS % USERS], &NoFlags).bucket)
        });
    });
    c.bench_function("decide/killed", |b| {
        let killed = compiled[7].with_kill(true);
        b.iter(|| black_box(black_box(&killed).decide(&borrowed[0], &NoFlags).variant));
    });
    c.bench_function("read and compile/one flag", |b| b.iter(|| compiled_of(black_box(&definitions[7]))));
    c.bench_function("read and compile/10k flags", |b| {
        b.iter_batched(
            || (),
            |()| definitions.iter().enumerate().map(|(number, json)| self::compiled(number, json)).collect::<Vec<_>>(),
            BatchSize::PerIteration,
        );
    });
}

fn compiled(number: usize, json: &[u8]) -> CompiledFlag {
    let flag = Flag::from_json(json).expect("a realistic flag is a flag");
    compile(&flags::key(number), &flag, &Segments::none()).expect("a realistic flag compiles")
}

fn compiled_of(json: &[u8]) -> CompiledFlag {
    compiled(7, json)
}

/// A context as a sidecar has it: names and values that lie in the bytes of the request.
struct Borrowed<'c> {
    key: &'c str,
    attributes: Vec<(&'c str, Attribute<'c>)>,
}

impl<'c> Borrowed<'c> {
    fn of(context: &'c Context) -> Self {
        let attributes = context.attributes.keys().filter_map(|name| Some((name.as_str(), context.attribute(name)?))).collect();
        Self { key: context.targeting_key.as_deref().unwrap_or_default(), attributes }
    }
}

impl Attributes for Borrowed<'_> {
    fn targeting_key(&self) -> Option<&str> {
        Some(self.key)
    }

    fn attribute(&self, path: &str) -> Option<Attribute<'_>> {
        // As the context of a request does it, see `wire::evaluation::Context`.
        let is_it = |name: &str| name.len() == path.len() && name.as_bytes().first() == path.as_bytes().first() && name == path;
        self.attributes.iter().find(|(name, _)| is_it(name)).map(|(_, value)| *value)
    }

    fn any_element(&self, _path: &str, _test: &mut dyn FnMut(Attribute<'_>) -> bool) -> bool {
        false
    }

    fn json(&self, _path: &str) -> Option<serde_json::Value> {
        None
    }
}

/// As in the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, decide);
criterion_main!(benches);
