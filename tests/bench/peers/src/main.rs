//! One realistic flag (three rules, five attributes, a split) in three engines, in one process and one run.
//!
//! Each round asks every engine in turn; what is printed is the median of the rounds, in thread CPU time, and ours over theirs. Before
//! anything is measured, all three must give the same answers where the answer does not depend on a hash.

// As they are in the crate: building all of it for this would take minutes.
#[allow(dead_code, unused_imports)]
#[path = "../../../../src/flag/mod.rs"]
mod flag;
#[allow(dead_code)]
#[path = "../../../../src/cli/bench/flags.rs"]
mod flags;

mod eppo;
mod yggdrasil;

use std::collections::HashMap;
use std::hint::black_box;

use flag::{Attribute, Attributes, CompiledFlag, Context, Flag, NoFlags, Segments, compile};
use metrohash::MetroBuildHasher;
use rustix::time::{ClockId, clock_gettime};

/// As in the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 41;
const QUESTIONS: usize = 50_000;
const USERS: usize = 256;
/// The number of the realistic flag that is asked; its split gives `on` to 50 of 100.
const NUMBER: usize = 49;

fn main() {
    let key = flags::key(NUMBER);
    let users: Vec<Context> = (0..USERS).map(flags::context).collect();
    let ours = Ours::new(&key, &users);
    let yggdrasil = yggdrasil::Yggdrasil::new(&key, &users);
    let eppo = eppo::Eppo::new(&key, &users);
    agree(&key);

    let mut engines: [(&str, Vec<f64>, Box<dyn Fn(usize) -> bool>); 5] = [
        ("yardarm: decide, borrowed context", Vec::new(), Box::new(|user| ours.decide_borrowed(user))),
        ("yardarm: decide, owned context", Vec::new(), Box::new(|user| ours.decide(user))),
        ("yardarm: map lookup and decide, borrowed context", Vec::new(), Box::new(|user| ours.look_up_and_decide(user))),
        ("unleash-yggdrasil 0.21.7: is_enabled", Vec::new(), Box::new(|user| yggdrasil.is_enabled(user))),
        ("eppo_core 10.0.0: get_assignment", Vec::new(), Box::new(|user| eppo.is_on(user))),
    ];
    for _ in 0..ROUNDS {
        for (_, rounds, ask) in &mut engines {
            let before = cpu_ns();
            for question in 0..QUESTIONS {
                black_box(ask(black_box(question % USERS)));
            }
            rounds.push((cpu_ns() - before) / QUESTIONS as f64);
        }
    }
    let medians: Vec<f64> = engines
        .iter_mut()
        .map(|(_, rounds, _)| {
            rounds.sort_by(f64::total_cmp);
            rounds[rounds.len() / 2]
        })
        .collect();
    for ((name, rounds, _), median) in engines.iter().zip(&medians) {
        println!("{name}: median {median:.1} ns (min {:.1})", rounds[0]);
    }
    for (name, peer) in [("yggdrasil", medians[3]), ("eppo_core", medians[4])] {
        println!("{:.2} x {name}; without the map lookup, which they make too, {:.2}", medians[2] / peer, medians[0] / peer);
    }
}

/// Who is caught by a rule without a split gets `on` from all three.
fn agree(key: &str) {
    let inside = flags::context(1).with("email", "ada@example.com");
    let plan = flags::context(NUMBER).with("seats", 50_000);
    let country = flags::context(1).with("country", "DE").with("plan", "nothing").with("appVersion", "1.0.0");
    for (context, expected) in [(inside, true), (plan_of(plan), true), (country, false)] {
        let users = [context];
        let answers =
            [Ours::new(key, &users).decide(0), yggdrasil::Yggdrasil::new(key, &users).is_enabled(0), eppo::Eppo::new(key, &users).is_on(0)];
        assert_eq!(answers, [expected; 3], "ours, yggdrasil and eppo_core for {:?}", users[0]);
    }
}

/// A plan and a country that the second rule asks for.
fn plan_of(context: Context) -> Context {
    let rule = flags::definition(NUMBER);
    let member = |condition: usize| rule["rules"][1]["when"][condition]["in"][0].clone();
    context.with("plan", member(0)).with("country", member(1))
}

fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

struct Ours<'u> {
    flag: CompiledFlag,
    /// Hashed as the sidecar's map is.
    by_key: HashMap<String, CompiledFlag, MetroBuildHasher>,
    key: String,
    users: &'u [Context],
    borrowed: Vec<Borrowed<'u>>,
}

impl<'u> Ours<'u> {
    fn new(key: &str, users: &'u [Context]) -> Self {
        let definition = flags::definition(NUMBER).to_string();
        let flag = Flag::from_json(definition.as_bytes()).expect("a realistic flag is a flag");
        let flag = compile(key, &flag, &Segments::none()).expect("a realistic flag compiles");
        let by_key = HashMap::from_iter([(key.to_owned(), flag.clone())]);
        Self { flag, by_key, key: key.to_owned(), users, borrowed: users.iter().map(Borrowed::of).collect() }
    }

    fn decide(&self, user: usize) -> bool {
        is_on(&self.flag, &self.users[user])
    }

    fn decide_borrowed(&self, user: usize) -> bool {
        is_on(&self.flag, &self.borrowed[user])
    }

    fn look_up_and_decide(&self, user: usize) -> bool {
        self.by_key.get(black_box(self.key.as_str())).is_some_and(|flag| is_on(flag, &self.borrowed[user]))
    }
}

fn is_on(flag: &CompiledFlag, context: &impl Attributes) -> bool {
    flag.decide(context, &NoFlags).variant.is_some_and(|variant| variant.name == "on")
}

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
