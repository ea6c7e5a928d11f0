//! What is wrong with a document: where, what was found, what was expected, and what was probably meant.

use std::borrow::Cow;
use std::fmt;

use super::limits;
use super::lines;

/// One thing wrong with a document.
///
/// Reads as `flags.checkout.rules[2].serve (line 14): found "onn", expected a variant of this flag; did you mean "on"?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From the root of what was read: `flags.checkout.rules[2].serve`. Empty when the whole is meant.
    pub path: String,
    /// In the text that was parsed, counted from 1.
    pub line: Option<u32>,
    pub found: String,
    pub expected: String,
    /// What to do, as a sentence's end: `did you mean "on"?`.
    pub hint: Option<String>,
}

/// Every problem of a document, in the order in which they were found; the first [`limits::PROBLEMS`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    list: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        if self.list.len() < limits::PROBLEMS {
            self.list.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    pub fn extend(&mut self, other: Problems) {
        other.list.into_iter().for_each(|problem| self.push(problem));
        self.left_out += other.left_out;
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// `Ok(value)` when there is no problem.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The same problems seen from further out: `rules[0]` becomes `flags.checkout.rules[0]`.
    pub fn under(mut self, prefix: &str) -> Self {
        for problem in &mut self.list {
            problem.path = match problem.path.as_str() {
                "" => prefix.to_owned(),
                path if path.starts_with('[') => format!("{prefix}{path}"),
                path => format!("{prefix}.{path}"),
            };
        }
        self
    }

    /// Each problem without a line gets the one of its path in `text`, the document in which the paths begin.
    pub fn located_in(mut self, text: &str) -> Self {
        lines::locate(text, &mut self);
        self
    }

    pub(super) fn sort_by_line(&mut self) {
        self.list.sort_by_key(|problem| problem.line);
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Problem> {
        self.list.iter_mut()
    }

    /// Whether another problem would only be counted.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= limits::PROBLEMS
    }

    pub(super) fn found(&mut self, path: Path<'_>, found: impl Into<String>, expected: impl Into<String>) {
        self.hinted(path, found, expected, None);
    }

    pub(super) fn hinted(&mut self, path: Path<'_>, found: impl Into<String>, expected: impl Into<String>, hint: Option<String>) {
        if self.is_full() {
            self.left_out += 1;
            return;
        }
        self.push(Problem { path: path.to_string(), line: None, found: found.into(), expected: expected.into(), hint });
    }
}

impl<'p> IntoIterator for &'p Problems {
    type Item = &'p Problem;
    type IntoIter = std::slice::Iter<'p, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, found, expected, hint } = self;
        f.write_str(if path.is_empty() { "document" } else { path })?;
        if let Some(line) = line {
            write!(f, " (line {line})")?;
        }
        write!(f, ": found {found}, expected {expected}")?;
        match hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.left_out {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// A place in a document, spelt only when there is something to say about it.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub(super) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    pub(super) fn index(&'p self, index: usize) -> Path<'p> {
        Path { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if self.parent.is_none_or(|parent| matches!(parent.step, Step::Root)) => f.write_str(&step_of_key(key)),
            Step::Key(key) => write!(f, ".{}", step_of_key(key)),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A key as paths show it, in one line. One that is too long to be read is cut, so that a thousand problems within it do not have it a
/// thousand times.
pub(super) fn step_of_key(key: &str) -> Cow<'_, str> {
    /// Longer than any key of ours.
    const LONGEST: usize = 160;
    const START: usize = 100;
    const END: usize = 20;
    if key.len() <= LONGEST {
        return in_one_line(key);
    }
    let (start, end) = (&key[..key.floor_char_boundary(START)], &key[key.ceil_char_boundary(key.len() - END)..]);
    Cow::Owned(format!("{}…({} bytes)…{}", in_one_line(start), key.len() - start.len() - end.len(), in_one_line(end)))
}

/// Control characters are escaped, as `\n`: what a document says must not become a line of the log by itself.
fn in_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = |character: char| match character.is_control() {
        true => character.escape_debug().to_string(),
        false => character.to_string(),
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Keys that lead to one another: `a -> b -> a`.
pub(super) fn way<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    keys.map(step_of_key).collect::<Vec<_>>().join(" -> ")
}

/// `did you mean "on"?`, when one of the known names is near enough to be what was meant.
pub(super) fn did_you_mean<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    // A distance takes the product of the two lengths, in time and in memory. What is longer than this was no slip of the pen.
    if found.len() > 2 * limits::KEY_BYTES {
        return None;
    }
    let lower = found.to_lowercase();
    let length = found.chars().count();
    let allowed = 1 + length / 3;
    known
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| format!("did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_a_sentence() {
        let root = Path::ROOT;
        let flags = root.key("flags");
        let flag = flags.key("checkout");
        let rules = flag.key("rules");
        let rule = rules.index(2);
        let mut problems = Problems::default();
        problems.hinted(rule.key("serve"), "\"onn\"", "a variant of this flag", did_you_mean("onn", ["off", "on"]));
        assert_eq!(
            problems.to_string(),
            "flags.checkout.rules[2].serve: found \"onn\", expected a variant of this flag; did you mean \"on\"?"
        );
    }

    #[test]
    fn no_name_is_proposed_that_is_far_from_what_was_written() {
        assert_eq!(did_you_mean("colour", ["state", "rules"]), None);
        assert_eq!(did_you_mean("defaultvariant", ["defaultVariant"]).as_deref(), Some("did you mean \"defaultVariant\"?"));
    }

    #[test]
    fn a_key_of_a_megabyte_is_compared_with_nothing() {
        let key = "defaultVariant".repeat(100_000);
        let counted = allocation_counter::measure(|| assert_eq!(did_you_mean(&key, ["defaultVariant"]), None));
        assert_eq!(counted.bytes_max, 0);
    }

    #[test]
    fn a_path_stays_short_whatever_the_keys_are() {
        let (root, long, key) = (Path::ROOT, "ä".repeat(100_000), "k".repeat(limits::KEY_BYTES));
        let flags = root.key("flags");
        assert!(flags.key(&long).to_string().len() < 200);
        assert_eq!(flags.key(&key).to_string(), format!("flags.{key}"));
    }

    #[test]
    fn a_path_is_one_line_whatever_the_keys_are() {
        let (root, long) = (Path::ROOT, format!("\u{1b}[2J{}\n", "ä".repeat(1_000)));
        let flags = root.key("flags");
        assert_eq!(flags.key("a\nb\0ü").to_string(), "flags.a\\nb\\0ü");
        let shown = flags.key(&long).to_string();
        assert!(shown.starts_with("flags.\\u{1b}[2Jä") && shown.ends_with("ä\\n"), "{shown}");
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let mut problems = Problems::default();
        (0..limits::PROBLEMS + 5).for_each(|_| problems.found(Path::ROOT, "a", "b"));
        assert_eq!(problems.len(), limits::PROBLEMS + 5);
        assert!(problems.to_string().ends_with("\nand 5 more"));
    }
}
