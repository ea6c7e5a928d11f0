//! Cases as text, in `tests/data/flag/*.cases`: a command, what it is given, `----`, and what comes out.
//!
//! `document` reads YAML and compiles it, and prints the problems. `decide FLAG` and `explain FLAG` answer one context in JSON for each line,
//! `holds CONDITION` whether a condition holds for each, `flagd FLAG` how the flag is sent to
//! flagd's in-process clients, or why it is not, `targeting RULE` what a rule of JsonLogic gives. `kill FLAG` and `restore FLAG` turn a
//! flag off and on again, `age MS` sets how old the state is, `clock S` the Unix time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::cases;
use yardarm::flag::{
    CompiledFlag, Context, Decision, Document, Flag, Lookup, Problems, Segments, TARGETING_KEY, check_environment, compile, translate,
};

#[test]
fn evaluation_follows_the_order() {
    run("order.cases");
}

#[test]
fn a_state_that_is_too_old_serves_the_stale_variant() {
    run("staleness.cases");
}

#[test]
fn conditions_say_what_absence_type_and_negation_give() {
    run("conditions.cases");
}

#[test]
fn splits_serve_their_shares() {
    run("splits.cases");
}

#[test]
fn targeting_gives_what_flagd_gives() {
    run("targeting.cases");
}

#[test]
fn problems_are_told_all_at_once_with_path_line_and_what_was_meant() {
    run("problems.cases");
}

#[test]
fn rollouts_that_cannot_be_carried_out_are_refused_with_the_place_and_the_reason() {
    run("rollouts.cases");
}

#[test]
fn templates_are_filled_in_where_they_are_named_and_checked_where_they_stand() {
    run("templates.cases");
}

#[test]
fn what_flagd_can_say_is_said_and_what_it_cannot_is_told_why() {
    run("translations.cases");
}

#[test]
fn explanations_tell_what_was_asked_and_found() {
    run("explain.cases");
}

/// One environment, as the cases before have left it.
#[derive(Default)]
struct World {
    flags: BTreeMap<String, CompiledFlag>,
    documents: BTreeMap<String, Flag>,
    killed: BTreeSet<String>,
    age_ms: u64,
    unix_s: i64,
}

impl Lookup for World {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.flags.get(key).map(|flag| flag.with_kill(self.killed.contains(key)))
    }

    fn age_ms(&self) -> u64 {
        self.age_ms
    }

    fn unix_s(&self) -> i64 {
        self.unix_s
    }
}

impl World {
    fn run(&mut self, command: &str, input: &str) -> String {
        let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "document" => match self.load(input) {
                Ok(()) => "fine".to_owned(),
                Err(problems) => problems.to_string(),
            },
            "kill" => {
                self.killed.insert(argument.to_owned());
                "killed".to_owned()
            }
            "restore" => {
                self.killed.remove(argument);
                "restored".to_owned()
            }
            "age" => {
                self.age_ms = argument.parse().unwrap();
                "set".to_owned()
            }
            "clock" => {
                self.unix_s = argument.parse().unwrap();
                "set".to_owned()
            }
            "flagd" => match translate(&self.flag(argument).unwrap(), &self.documents[argument], self) {
                Ok(translation) => translation.to_json("test").to_string(),
                Err(obstacle) => format!("{}: {}", obstacle.name(), obstacle.in_words()),
            },
            "targeting" => match targeting(argument) {
                Ok(flag) => each_line(input, |context| given(&flag, context, self)),
                Err(problems) => problems.to_string(),
            },
            "decide" => each_line(input, |context| written(&self.flag(argument).unwrap().decide(context, self))),
            "explain" => each_line(input, |context| self.flag(argument).unwrap().explain(context, self).to_string().trim_end().to_owned()),
            "holds" => match condition(argument) {
                Ok(flag) => each_line(input, |context| match flag.decide(context, self).rule {
                    Some(_) => "yes".to_owned(),
                    None => "no".to_owned(),
                }),
                Err(problems) => problems.to_string(),
            },
            _ => panic!("{verb} is no command"),
        }
    }

    fn load(&mut self, text: &str) -> Result<(), Problems> {
        let document = Document::parse(text)?;
        let (segments, mut problems) = Segments::compile(document.segments.iter().map(|(key, segment)| (key.as_str(), segment)));
        let mut flags = BTreeMap::new();
        for (key, flag) in &document.flags {
            match compile(key, flag, &segments) {
                Ok(compiled) => _ = flags.insert(key.clone(), compiled),
                Err(refused) => problems.extend(refused),
            }
        }
        if problems.is_empty() {
            problems.extend(check_environment(&document.flags, &document.segments).err().unwrap_or_default());
        }
        if !problems.is_empty() {
            return Err(problems.located_in(text));
        }
        (self.flags, self.documents, self.killed) = (flags, document.flags, BTreeSet::new());
        Ok(())
    }
}

/// A flag with a rule of this one condition.
fn condition(condition: &str) -> Result<CompiledFlag, Problems> {
    let text = format!("flags: {{ f: {{ variants: {{ a: 1 }}, defaultVariant: a, rules: [{{ when: [{condition}], serve: a }}] }} }}");
    compile("f", &Document::parse(&text)?.flags["f"], &Segments::none())
}

/// A flag that has this rule.
fn targeting(rule: &str) -> Result<CompiledFlag, Problems> {
    let text = format!("flags: {{ f: {{ variants: {{ a: 1 }}, defaultVariant: a, targeting: {rule} }} }}");
    compile("f", &Document::parse(&text)?.flags["f"], &Segments::none())
}

/// What the rule gave, as the explanation has it.
fn given(flag: &CompiledFlag, context: &Context, world: &World) -> String {
    let explanation = flag.explain(context, world);
    let step = explanation.steps.iter().find(|step| step.name == "targeting").unwrap();
    let gave = step.outcome.split(": serves").next().unwrap().split(", which is no variant").next().unwrap();
    gave.split(" (").next().unwrap().trim_start_matches("gave ").to_owned()
}

fn each_line(input: &str, answer: impl Fn(&Context) -> String) -> String {
    input.lines().map(|line| answer(&context(line))).collect::<Vec<_>>().join("\n")
}

fn context(json: &str) -> Context {
    let mut attributes: serde_json::Map<_, _> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    let targeting_key = attributes.remove(TARGETING_KEY).and_then(|key| key.as_str().map(str::to_owned));
    Context { targeting_key, attributes }
}

/// `v2.3.0 SPLIT rule=rollout bucket=4711`
fn written(decision: &Decision<'_>) -> String {
    let Decision { variant, reason, rule, bucket, key_missing, is_unreadable: _ } = decision;
    let mut text = format!("{} {}", variant.map_or("(caller's default)", |variant| &variant.name), reason.as_str());
    rule.iter().for_each(|rule| _ = write!(text, " rule={rule}"));
    bucket.iter().for_each(|bucket| _ = write!(text, " bucket={bucket}"));
    if *key_missing {
        text.push_str(" without-key");
    }
    text
}

fn run(file: &str) {
    let mut world = World::default();
    cases::run(&Path::new("tests/data/flag").join(file), |command, input| world.run(command, input));
}
