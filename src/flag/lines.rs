//! The line of every place that a problem names.
//!
//! A document may have millions of places, and a path may be as long as it is deep. So only paths that are asked for are followed: the walk
//! takes one pass over the text and no more memory than the problems have, whatever the document looks like.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span};
use serde::de::IgnoredAny;

use super::problem::{Problems, step_of_key};

/// Fills in the line of each problem that has none, from the place in `text` that its path names, or from the nearest place around it, and
/// puts the problems into the order of the text.
pub(super) fn locate(text: &str, problems: &mut Problems) {
    if problems.iter().all(|problem| problem.line.is_some()) {
        return;
    }
    let mut wanted = Wanted::of(problems.iter().filter(|problem| problem.line.is_none()).map(|problem| problem.path.as_str()));
    wanted.find_in(text);
    let lines: Vec<_> = problems.iter().map(|problem| problem.line.or_else(|| wanted.line(&problem.path))).collect();
    problems.iter_mut().zip(lines).for_each(|(problem, line)| problem.line = line);
    problems.sort_by_line();
}

pub(super) fn line(span: Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX)
}

/// Paths that are looked for, and where they and the places around them were found.
struct Wanted<'p> {
    /// Sorted, each once, so that those that begin alike lie side by side.
    paths: Vec<&'p str>,
    /// The line of the first so many bytes of a path. Of paths that begin alike it is kept with the first.
    lines: HashMap<(usize, usize), u32>,
}

/// A place in the document, as the paths that lead to it or through it.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    end: usize,
    /// Bytes of these paths that lead here.
    length: usize,
}

impl<'p> Wanted<'p> {
    fn of(paths: impl Iterator<Item = &'p str>) -> Self {
        let mut paths: Vec<_> = paths.filter(|path| !path.is_empty()).collect();
        paths.sort_unstable();
        paths.dedup();
        Self { paths, lines: HashMap::new() }
    }

    /// JSON is walked without a parser: YAML's keeps all of a text in braces until it has seen its end.
    fn find_in(&mut self, text: &str) {
        if self.paths.is_empty() {
            return;
        }
        let walk = Walk { wanted: self, frames: Vec::new(), unasked: 0, step: String::new() };
        match text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
            true => walk.json(text),
            false => walk.yaml(text),
        }
    }

    fn root(&self) -> Place {
        Place { first: 0, end: self.paths.len(), length: 0 }
    }

    /// One step further; `None` when nobody asks for what is there. Of a key that is there twice, the second counts.
    fn step(&mut self, at: Place, step: &str, line: u32) -> Option<Place> {
        let rest = |path: &&'p str| &path.as_bytes()[at.length..];
        let around = &self.paths[at.first..at.end];
        let before = around.partition_point(|path| rest(path) < step.as_bytes());
        let count = around[before..].partition_point(|path| rest(path).starts_with(step.as_bytes()));
        let first = at.first + before;
        let place = Place { first, end: first + count, length: at.length + step.len() };
        (count > 0).then(|| {
            self.lines.insert((place.first, place.length), line);
            place
        })
    }

    /// Of the place itself, or of the nearest around it.
    fn line(&self, path: &str) -> Option<u32> {
        let mut first = self.paths.binary_search(&path).ok()?;
        let ends = path.rmatch_indices(['.', '[']).map(|(end, _)| end);
        [path.len()].into_iter().chain(ends).find_map(|end| {
            while first > 0 && self.paths[first - 1].as_bytes().starts_with(&path.as_bytes()[..end]) {
                first -= 1;
            }
            self.lines.get(&(first, end)).copied()
        })
    }
}

/// Follows a text from its beginning to its end.
struct Walk<'w, 'p> {
    wanted: &'w mut Wanted<'p>,
    /// Objects and lists around, outermost first, in which somebody asks for something.
    frames: Vec<Frame>,
    /// Objects and lists around, within those, in which nobody asks for anything. They are only counted.
    unasked: usize,
    step: String,
}

struct Frame {
    place: Place,
    next: Next,
}

enum Next {
    Key,
    Value(Option<Place>),
    Element(usize),
}

impl Walk<'_, '_> {
    fn yaml(mut self, text: &str) {
        let mut parser = Parser::new_from_str(text);
        while let Some(Ok((event, span))) = parser.next_event() {
            match event {
                Event::Scalar(text, ..) => self.scalar(line(span), || text),
                Event::Alias(_) => self.scalar(line(span), Cow::default),
                Event::SequenceStart(..) => self.begin(line(span), Next::Element(0)),
                Event::MappingStart(..) => self.begin(line(span), Next::Key),
                Event::SequenceEnd | Event::MappingEnd => self.end(),
                _ => {}
            }
        }
    }

    /// `text` is known to be JSON, so that keys and values take turns and colons and commas say nothing.
    fn json(mut self, text: &str) {
        let bytes = text.as_bytes();
        let (mut at, mut line) = (0, 1);
        while let Some(byte) = bytes.get(at) {
            let start = at;
            at += 1;
            match byte {
                b'\n' => line += 1,
                b'\r' if bytes.get(at) != Some(&b'\n') => line += 1,
                b'{' => self.begin(line, Next::Key),
                b'[' => self.begin(line, Next::Element(0)),
                b'}' | b']' => self.end(),
                b'"' => {
                    while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                        at += if *byte == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                    self.scalar(line, || unescaped(text.get(start..at).unwrap_or_default()));
                }
                b' ' | b'\t' | b'\r' | b',' | b':' => {}
                _ => {
                    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                    at += bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                    self.scalar(line, Cow::default);
                }
            }
        }
    }

    fn begin(&mut self, line: u32, next: Next) {
        if self.unasked > 0 {
            self.unasked += 1;
            return;
        }
        match self.value(line) {
            Some(place) => self.frames.push(Frame { place, next }),
            None => self.unasked = 1,
        }
    }

    fn end(&mut self) {
        match self.unasked {
            0 => _ = self.frames.pop(),
            _ => self.unasked -= 1,
        }
    }

    /// `text` is asked for only where it is a key.
    fn scalar<'k>(&mut self, line: u32, text: impl FnOnce() -> Cow<'k, str>) {
        if self.unasked > 0 {
            return;
        }
        let is_within = self.frames.len() > 1;
        match self.frames.last_mut() {
            Some(Frame { place, next: next @ Next::Key }) => {
                self.step.clear();
                if is_within {
                    self.step.push('.');
                }
                self.step.push_str(&step_of_key(&text()));
                *next = Next::Value(self.wanted.step(*place, &self.step, line));
            }
            _ => _ = self.value(line),
        }
    }

    /// The place of the value that begins here.
    fn value(&mut self, line: u32) -> Option<Place> {
        let Some(Frame { place, next }) = self.frames.last_mut() else { return Some(self.wanted.root()) };
        match next {
            Next::Value(value) => {
                let value = *value;
                *next = Next::Key;
                value
            }
            Next::Element(index) => {
                self.step = format!("[{index}]");
                *index += 1;
                self.wanted.step(*place, &self.step, line)
            }
            // A key that is no text, which no document has that is read.
            Next::Key => None,
        }
    }
}

/// What a string of JSON stands for.
fn unescaped(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => Cow::Owned(serde_json::from_str(json).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::super::limits;
    use super::super::problem::Problem;
    use super::*;

    fn lines<const N: usize>(text: &str, paths: [&str; N]) -> [Option<u32>; N] {
        let mut wanted = Wanted::of(paths.into_iter());
        wanted.find_in(text);
        paths.map(|path| wanted.line(path))
    }

    #[test]
    fn each_place_has_its_line() {
        let text = "a:\n  - x: 1\n    y:\n      z: 2\n  - 3\nb: {c: [4,\n  5]}\n";
        let paths = ["a", "a[0]", "a[0].x", "a[0].y.z", "a[1]", "b.c", "b.c[1]"];
        assert_eq!(lines(text, paths), [1, 2, 2, 4, 5, 6, 7].map(Some));
    }

    #[test]
    fn json_has_the_lines_of_the_same_text_read_as_yaml() {
        let text = "{\n \"a\": [\n  {\"x\": 1, \"y\":\n   {\"z\": -2.5e3}}, \"br}ck\\\"t\",\r\n  null],\n \"b.c\": {\"\\u0064\":\n  {}, \"e\":\n[] }\n}\n";
        let paths = ["a", "a[0].x", "a[0].y.z", "a[1]", "a[2]", "b.c", "b.c.d", "b.c.e", "b.c.e.nothing"];
        assert_eq!(lines(text, paths), [2, 3, 4, 4, 5, 6, 6, 7, 7].map(Some));
        let mut read_as_yaml = Wanted::of(paths.into_iter());
        Walk { wanted: &mut read_as_yaml, frames: Vec::new(), unasked: 0, step: String::new() }.yaml(text);
        assert_eq!(paths.map(|path| read_as_yaml.line(path)), lines(text, paths));
    }

    #[test]
    fn a_place_that_is_not_there_has_the_line_of_the_nearest_around_it() {
        let text = "flags:\n  a.b:\n    rules:\n      - serve: on\n  a:\n    x: 1\n";
        let paths = ["flags.a.b.rules[0].when[3].segment", "flags.a.b.offVariant", "flags.a.y", "flags.c", "other", "flags.ab"];
        assert_eq!(lines(text, paths), [Some(4), Some(2), Some(5), Some(1), None, Some(1)]);
    }

    #[test]
    fn of_a_key_that_is_there_twice_the_second_counts() {
        assert_eq!(lines("a: 1\nb: 2\na: 3\n", ["a", "b"]), [Some(3), Some(2)]);
    }

    #[test]
    fn the_path_of_a_key_that_is_too_long_to_be_read_leads_there() {
        let [long, other] = ["x", "y"].map(|last| format!("{}{last}", "k".repeat(5_000)));
        let text = format!("{{\n\"{other}\": 1,\n\"{long}\": 1\n}}");
        let problems = super::super::Document::parse(&text).unwrap_err();
        let found: Vec<_> = problems.iter().map(|problem| (problem.line, problem.path.len() < 200)).collect();
        assert_eq!(found, [(Some(2), true), (Some(3), true)]);
    }

    /// Memory for what is asked, not for what is there.
    #[test]
    fn a_long_key_before_many_values_takes_no_memory_for_each() {
        let values = vec!["1"; 100_000].join(",");
        for text in [format!("{{\"{}\":\n[{values}]}}", "a".repeat(100_000)), format!("{{\"flags\":\n{{\"a\":[{values}]}}}}")] {
            let mut problems = Problems::default();
            let mut problem = |path: String| {
                problems.push(Problem { path, line: None, found: String::new(), expected: String::new(), hint: None });
            };
            problem(step_of_key(&"a".repeat(100_000)).into_owned());
            (0..limits::PROBLEMS - 1).for_each(|number| problem(format!("flags.a[{}]", number * 100)));
            let counted = measure(|| locate(&text, &mut problems));
            assert!(counted.bytes_max < 1 << 20, "{} bytes for {} of text", counted.bytes_max, text.len());
            assert!(problems.iter().filter(|problem| problem.line.is_some()).count() >= 1);
        }
    }

    /// A problem costs its own path, however long the keys on the way to it are.
    #[test]
    fn many_problems_under_a_long_key_do_not_repeat_it() {
        let unknown: Vec<_> = (0..2_000).map(|number| format!("\"u{number}\":1")).collect();
        let text = format!("{{\"flags\":{{\"{}\":{{{}}}}}}}", "k".repeat(200_000), unknown.join(","));
        let mut problems = None;
        let counted = measure(|| problems = super::super::Document::parse(&text).err());
        assert!(problems.is_some_and(|problems| problems.len() > 2_000 && problems.iter().all(|problem| problem.line == Some(1))));
        assert!(counted.bytes_max < 8 << 20, "{} bytes for {} of text", counted.bytes_max, text.len());
    }
}
