//! What no flag can say of itself alone: that its prerequisites are there and lead nowhere in a circle, and that the whole is not too much.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use super::document::{Condition, Flag, Prerequisite, Segment, Test};
use super::limits;
use super::node::quoted;
use super::problem::{Path, Problems, did_you_mean, way};

/// Checks what holds between the flags and segments of an environment. Each of them by itself is checked by [`super::compile`] and
/// [`super::Segments::compile`]; their size, which takes writing them, by [`check_environment_size`].
///
/// Paths of problems begin with `flags.<key>`. Takes about 0.1 ms for 10,000 flags.
pub fn check_environment<F: Borrow<Flag>, S: Borrow<Segment>>(
    flags: &BTreeMap<String, F>,
    segments: &BTreeMap<String, S>,
) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for (count, most, what) in
        [(flags.len(), limits::ENVIRONMENT_FLAGS, "flags"), (segments.len(), limits::ENVIRONMENT_SEGMENTS, "segments")]
    {
        if count > most {
            problems.found(Path::ROOT, format!("{count} {what}"), format!("at most {most}"));
        }
    }
    for (key, flag) in flags {
        prerequisites(key, flag.borrow(), flags, &mut problems);
        read_segments(key, flag.borrow(), segments, &mut problems);
    }
    Chains { flags, known: HashMap::new(), path: Vec::new(), problems: &mut problems }.check();
    problems.into_result(())
}

/// `bytes`: canonical JSON of every flag and segment together.
pub fn check_environment_size(bytes: usize) -> Result<(), Problems> {
    let mut problems = Problems::default();
    if bytes > limits::ENVIRONMENT_BYTES {
        problems.found(Path::ROOT, format!("an environment of {bytes} bytes"), format!("at most {} bytes", limits::ENVIRONMENT_BYTES));
    }
    problems.into_result(())
}

fn prerequisites<F: Borrow<Flag>>(key: &str, flag: &Flag, flags: &BTreeMap<String, F>, problems: &mut Problems) {
    for (index, Prerequisite { flag: wanted, variants }) in flag.prerequisites.iter().enumerate() {
        at_prerequisite(key, index, |path| match flags.get(wanted) {
            None => {
                let hint = did_you_mean(wanted, flags.keys().map(String::as_str));
                problems.hinted(path.key("flag"), format!("the unknown flag {}", quoted(wanted)), "a flag of this environment", hint);
            }
            Some(other) => {
                let known = &other.borrow().variants;
                for variant in variants.iter().filter(|variant| !known.contains_key(*variant)) {
                    let hint = did_you_mean(variant, known.keys().map(String::as_str));
                    problems.hinted(
                        path.key("variants"),
                        format!("the unknown variant {}", quoted(variant)),
                        format!("a variant of flag {wanted}"),
                        hint,
                    );
                }
            }
        });
    }
}

fn at_prerequisite(key: &str, index: usize, act: impl FnOnce(Path<'_>)) {
    let root = Path::ROOT;
    let flags = root.key("flags");
    let flag = flags.key(key);
    let list = flag.key("prerequisites");
    act(list.index(index));
}

fn read_segments<S>(key: &str, flag: &Flag, segments: &BTreeMap<String, S>, problems: &mut Problems) {
    for (index, rule) in flag.rules.iter().enumerate() {
        for (place, Condition { test, .. }) in rule.when.iter().enumerate() {
            if let Test::Segment(segment) = test
                && !segments.contains_key(segment)
            {
                let hint = did_you_mean(segment, segments.keys().map(String::as_str));
                let (flags, found) = (Path::ROOT.key("flags"), format!("the unknown segment {}", quoted(segment)));
                let (flag, expected) = (flags.key(key), "a segment of this environment");
                let rules = flag.key("rules");
                let rule = rules.index(index);
                let when = rule.key("when");
                problems.hinted(when.index(place).key("segment"), found, expected, hint);
            }
        }
    }
}

/// Follows prerequisites depth first. Flags without any, which is nearly all, cost one look.
struct Chains<'f, F> {
    flags: &'f BTreeMap<String, F>,
    known: HashMap<&'f str, Reach>,
    path: Vec<&'f str>,
    problems: &'f mut Problems,
}

/// How far the prerequisites of a flag go.
#[derive(Clone, Copy, Default)]
struct Reach {
    levels: usize,
    /// Other flags that one decision asks, counted each time.
    decisions: u64,
}

impl<'f, F: Borrow<Flag>> Chains<'f, F> {
    fn check(mut self) {
        let flags = self.flags;
        for (key, flag) in flags.iter().filter(|(_, flag)| !(*flag).borrow().prerequisites.is_empty()) {
            let reach = self.follow(key, flag.borrow());
            let root = Path::ROOT;
            let (outer, place) = (root.key("flags"), "prerequisites");
            let flag = outer.key(key);
            if reach.levels > limits::NESTING {
                self.problems.found(
                    flag.key(place),
                    format!("prerequisites of prerequisites, {} levels", reach.levels),
                    format!("at most {}", limits::NESTING),
                );
            }
            if reach.decisions > u64::from(limits::PREREQUISITE_DECISIONS) {
                let found = format!("prerequisites that ask {} flags for one decision", reach.decisions);
                self.problems.found(flag.key(place), found, format!("at most {}", limits::PREREQUISITE_DECISIONS));
            }
        }
    }

    /// The path is cut at the level after the last that is allowed, so that a long chain cannot exhaust the stack.
    fn follow(&mut self, key: &'f str, flag: &'f Flag) -> Reach {
        if flag.prerequisites.is_empty() || self.path.len() > limits::NESTING {
            return Reach::default();
        }
        if let Some(known) = self.known.get(key) {
            return *known;
        }
        self.path.push(key);
        let mut reach = Reach::default();
        for (index, Prerequisite { flag: wanted, .. }) in flag.prerequisites.iter().enumerate() {
            let Some((wanted, other)) = self.flags.get_key_value(wanted) else { continue };
            if let Some(start) = self.path.iter().position(|outer| outer == wanted) {
                let cycle = way(self.path[start..].iter().copied().chain([wanted.as_str()]));
                // A flag that is its own prerequisite is told when it is compiled.
                if self.path[start..].len() > 1 {
                    at_prerequisite(key, index, |path| self.problems.found(path.key("flag"), format!("a cycle: {cycle}"), "no cycle"));
                }
                continue;
            }
            let inner = self.follow(wanted, other.borrow());
            reach.levels = reach.levels.max(1 + inner.levels);
            reach.decisions = reach.decisions.saturating_add(1).saturating_add(inner.decisions);
        }
        self.path.pop();
        self.known.insert(key, reach);
        reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::Document;

    fn check(text: &str) -> String {
        let document = Document::parse(text).unwrap();
        check_environment(&document.flags, &document.segments).map_or_else(|problems| problems.to_string(), |()| "fine".to_owned())
    }

    fn flag(prerequisites: &str) -> String {
        format!("{{ variants: {{ on: true, off: false }}, defaultVariant: on, prerequisites: [{prerequisites}] }}")
    }

    fn needs(flag: &str) -> String {
        format!("{{ flag: {flag}, variants: [on] }}")
    }

    #[test]
    fn a_prerequisite_is_a_flag_and_a_variant_that_are_there() {
        let text = format!("flags: {{ a: {}, b: {} }}", flag("{ flag: bb, variants: [on] }"), flag("{ flag: a, variants: [om] }"));
        assert_eq!(
            check(&text),
            "flags.a.prerequisites[0].flag: found the unknown flag \"bb\", expected a flag of this environment; did you mean \"b\"?\n\
             flags.b.prerequisites[0].variants: found the unknown variant \"om\", expected a variant of flag a; did you mean \"on\"?"
        );
    }

    #[test]
    fn a_cycle_is_printed_once() {
        let text = format!("flags: {{ a: {}, b: {}, c: {} }}", flag(&needs("b")), flag(&needs("c")), flag(&needs("a")));
        assert_eq!(check(&text), "flags.c.prerequisites[0].flag: found a cycle: a -> b -> c -> a, expected no cycle");
    }

    #[test]
    fn a_chain_has_sixteen_levels_at_most() {
        let chain = |length: usize| {
            let flags: Vec<String> = (0..=length)
                .map(|index| format!("f{index}: {}", flag(&if index < length { needs(&format!("f{}", index + 1)) } else { String::new() })))
                .collect();
            check(&format!("flags: {{ {} }}", flags.join(", ")))
        };
        assert_eq!(chain(16), "fine");
        assert!(chain(17).contains("17 levels"), "{}", chain(17));
        assert!(chain(2_000).contains("levels"));
    }

    #[test]
    fn prerequisites_cannot_multiply() {
        let layers: Vec<String> = (0..12)
            .flat_map(|layer| {
                let both = if layer > 0 {
                    format!("{}, {}", needs(&format!("a{}", layer - 1)), needs(&format!("b{}", layer - 1)))
                } else {
                    String::new()
                };
                ["a", "b"].map(|name| format!("{name}{layer}: {}", flag(&both)))
            })
            .collect();
        assert!(check(&format!("flags: {{ {} }}", layers.join(", "))).contains("flags for one decision"));
    }
}
