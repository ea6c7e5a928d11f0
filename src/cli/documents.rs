//! Flag documents from files: several read as one, and every problem with the file and the line that it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;

use serde::Serialize;

use super::exit::{Failure, innermost};
use crate::flag::{Document, Problem, Problems, Segments, Templates, check_environment, compile, limits};

/// Files that together are one document.
pub struct Documents {
    files: Vec<File>,
    pub joined: Document,
    /// The file of each `flags.<key>` and `segments.<key>`.
    origins: BTreeMap<String, usize>,
    /// What could not be read, and is missing from `joined`.
    misread: Vec<(usize, Problem)>,
}

struct File {
    name: String,
    text: String,
}

/// A problem where an editor finds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Located {
    pub file: String,
    pub line: Option<u32>,
    pub path: String,
    pub found: String,
    pub expected: String,
    pub hint: Option<String>,
}

impl Documents {
    /// Fails only when a file cannot be read at all; what is wrong in it comes with the other problems.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        Ok(Self::join(paths.iter().map(read).collect::<Result<_, _>>()?))
    }

    fn join(files: Vec<File>) -> Self {
        let mut documents = Self { files, joined: Document::default(), origins: BTreeMap::new(), misread: Vec::new() };
        let templates = documents.templates();
        for (index, File { text, .. }) in documents.files.iter().enumerate() {
            let (document, problems) = Document::parse_partly_with(text, &templates);
            documents.misread.extend(problems.into_iter().map(|problem| (index, problem)));
            let Some(Document { flags, segments, metadata, evaluators }) = document else { continue };
            let paths = flags.keys().map(|key| format!("flags.{key}")).chain(segments.keys().map(|key| format!("segments.{key}")));
            let mut twice = Problems::default();
            for path in paths {
                if let Some(first) = documents.origins.insert(path.clone(), index) {
                    let found = format!("a definition that stands in {} too", documents.files[first].name);
                    twice.push(Problem { path, line: None, found, expected: "one definition of each key".to_owned(), hint: None });
                }
            }
            documents.misread.extend(twice.located_in(text).into_iter().map(|problem| (index, problem)));
            documents.joined.flags.extend(flags);
            documents.joined.segments.extend(segments);
            documents.joined.metadata.extend(metadata);
            documents.joined.evaluators.extend(evaluators);
        }
        documents
    }

    /// Those of all files, because a flag may name one that stands in another.
    fn templates(&mut self) -> Templates {
        let mut templates = Templates::default();
        for (index, File { name, text }) in self.files.iter().enumerate().filter(|(_, file)| file.text.contains("templates")) {
            let mut twice = Problems::default();
            for template in templates.join(Templates::of(text)) {
                let found = format!("a template that stands in a file before {name} too");
                let path = format!("templates.{template}");
                twice.push(Problem { path, line: None, found, expected: "one template of each name".to_owned(), hint: None });
            }
            self.misread.extend(twice.located_in(text).into_iter().map(|problem| (index, problem)));
        }
        templates
    }

    /// What keeps these files from being a document, whatever it says.
    pub fn misread(&self) -> Vec<Located> {
        self.misread.iter().map(|(index, problem)| Located::new(&self.files[*index].name, problem.clone())).collect()
    }

    /// Everything for which a control plane would refuse these files if they were the whole environment, in the order of the files.
    pub fn check(&self) -> Vec<Located> {
        let misread: BTreeSet<_> = self.misread.iter().map(|(_, problem)| self.place(&problem.path)).collect();
        let is_consequence = |problem: &Problem| {
            let (owner, place) = self.place(&problem.path);
            [place, "", ".variants"].into_iter().any(|place| misread.contains(&(owner, place)))
        };
        let problems = self.compile().into_iter().filter(|problem| !is_consequence(problem));
        let found = problems.map(|problem| (self.file_of(&problem.path), problem)).collect();
        let mut all: Vec<_> = self.lines(found).into_iter().chain(self.misread.iter().cloned()).collect();
        all.sort_by_key(|(index, problem)| (*index, problem.line));
        all.into_iter().filter_map(|(index, problem)| Some(Located::new(&self.files.get(index)?.name, problem))).collect()
    }

    fn compile(&self) -> Problems {
        let Document { flags, segments, .. } = &self.joined;
        let mut segments = segments.clone();
        // A segment that is there and cannot be read is not an unknown one.
        let unread = self.misread.iter().filter_map(|(_, problem)| problem.path.strip_prefix("segments."));
        unread.filter(|key| limits::is_key(key)).for_each(|key| {
            segments.entry(key.to_owned()).or_default();
        });
        let (compiled, mut problems) = Segments::compile(segments.iter().map(|(key, segment)| (key.as_str(), segment)));
        for (key, flag) in flags {
            problems.extend(compile(key, flag, &compiled).err().unwrap_or_default());
            // Measured as the store writes it: spaces and comments of the file do not count.
            let (bytes, most) = (flag.to_canonical_json().len(), limits::FLAG_BYTES);
            if bytes > most {
                let (path, found, expected) = (format!("flags.{key}"), format!("a flag of {bytes} bytes"), format!("at most {most} bytes"));
                problems.push(Problem { path, line: None, found, expected, hint: None });
            }
        }
        // A name that leads nowhere is found by both; once is enough for whoever has to mend it.
        let known: BTreeSet<_> = problems.iter().map(|problem| problem.path.clone()).collect();
        let between = check_environment(flags, &segments).err().unwrap_or_default();
        between.into_iter().filter(|problem| !known.contains(&problem.path)).for_each(|problem| problems.push(problem));
        problems
    }

    /// Finds the file and the line of problems that are known by their path in the joined document.
    pub fn locate(&self, problems: Problems) -> Vec<Located> {
        let found = problems.into_iter().map(|problem| (self.file_of(&problem.path), problem)).collect();
        self.lines(found).into_iter().filter_map(|(index, problem)| Some(Located::new(&self.files.get(index)?.name, problem))).collect()
    }

    fn lines(&self, found: Vec<(usize, Problem)>) -> Vec<(usize, Problem)> {
        let mut by_file: BTreeMap<usize, Problems> = BTreeMap::new();
        for (index, problem) in found {
            by_file.entry(index).or_default().push(problem);
        }
        let known = by_file.into_iter().filter_map(|(index, problems)| Some((index, problems.located_in(&self.files.get(index)?.text))));
        known.flat_map(|(index, problems)| problems.into_iter().map(move |problem| (index, problem))).collect()
    }

    fn file_of(&self, path: &str) -> usize {
        self.origins.get(self.place(path).0).copied().unwrap_or_default()
    }

    /// A path as the flag or segment that it is in (the longest known one, because keys have dots in them too) and the part of that:
    /// `flags.checkout` and `.rules`.
    fn place<'p>(&self, path: &'p str) -> (&'p str, &'p str) {
        let mut ends = [path.len()].into_iter().chain(path.rmatch_indices(['.', '[']).map(|(end, _)| end));
        let end = ends.find(|end| self.origins.contains_key(&path[..*end])).unwrap_or(path.len());
        let (owner, rest) = path.split_at(end);
        let next = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '.' | '[')).map_or(rest.len(), |(at, _)| at);
        (owner, &rest[..next])
    }
}

fn read(path: &PathBuf) -> Result<File, Failure> {
    let (name, text) = match path.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            ("<stdin>".to_owned(), io::stdin().read_to_string(&mut text).map(|_| text))
        }
        false => (path.display().to_string(), std::fs::read_to_string(path)),
    };
    match text {
        Ok(text) => Ok(File { name, text }),
        Err(error) => Err(Failure::unable(format!("cannot read the flag document {name}: {}", innermost(&error)))),
    }
}

impl Located {
    fn new(file: &str, Problem { path, line, found, expected, hint }: Problem) -> Self {
        Self { file: file.to_owned(), line, path, found, expected, hint }
    }
}

/// `flags.yaml:14: flags.checkout.rules[2].serve: found "onn", expected a variant of this flag; did you mean "on"?`
impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, path, found, expected, hint } = self;
        f.write_str(file)?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "found {found}, expected {expected}")?;
        match hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str]) -> Vec<String> {
        let files = texts.iter().enumerate().map(|(index, text)| File { name: format!("{index}.yaml"), text: (*text).to_owned() });
        Documents::join(files.collect()).check().iter().map(Located::to_string).collect()
    }

    const CHECKOUT: &str = "flags:\n  checkout:\n    variants: { on: true, off: false }\n    defaultVariant: off\n";

    #[test]
    fn a_problem_is_told_with_the_file_and_line_of_its_flag() {
        let other = "flags:\n  a.b:\n    variants: { on: true }\n    defaultVariant: onn\n";
        let found = check(&[CHECKOUT, other]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("1.yaml:4: flags.a.b.defaultVariant: found the unknown variant \"onn\""), "{}", found[0]);
        assert!(found[0].ends_with("did you mean \"on\"?"), "{}", found[0]);
    }

    #[test]
    fn a_segment_may_stand_in_another_file() {
        let rule = "flags:\n  a:\n    variants: { on: true, off: false }\n    defaultVariant: off\n    rules: [ { when: [ { segment: staff } ], serve: on } ]\n";
        let segment = "segments:\n  staff: { included: [ana] }\n";
        assert_eq!(check(&[rule, segment]), Vec::<String>::new());
        assert_eq!(check(&[rule]).len(), 1);
    }

    #[test]
    fn a_template_may_stand_in_another_file_and_in_one_only() {
        let flag = "flags:
  a:
    variants: { on: true, off: false }
    defaultVariant: off
    rules: [ { split: { weights: { on: 0, off: 100 } } } ]
    rollout: { template: quick, with: { share: 5 } }
";
        let template = "templates:
  quick:
    parameters: { share: }
    rollout: { baseline: $(baseline), treatments: [ $(treatment) ], stages: [ { percent: $(share) }, { percent: 100 } ] }
";
        assert_eq!(check(&[flag, template]), Vec::<String>::new());
        let unknown = check(&[flag]);
        assert!(unknown[0].starts_with("0.yaml:6: flags.a.rollout.template: found the unknown template \"quick\""), "{unknown:?}");
        let twice = check(&[flag, template, template]);
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert!(twice[0].starts_with("2.yaml:2: templates.quick: found a template that stands in a file before 2.yaml too"), "{twice:?}");
    }

    #[test]
    fn a_flag_that_stands_in_two_files_is_refused() {
        let found = check(&[CHECKOUT, CHECKOUT]);
        assert_eq!(found, ["1.yaml:2: flags.checkout: found a definition that stands in 0.yaml too, expected one definition of each key"]);
    }

    #[test]
    fn what_is_misspelt_hides_no_other_problem_and_makes_none() {
        let text = "flags:
  checkout:
    variants: { on: true, off: false }
    defaultVarient: off
    offVariant: offf
    rules:
      - when: [ { segment: stafff } ]
        serve: onn
  other:
    variants: { on: true, off: maybe }
    defaultVariant: off
segments:
  stafff: 5
";
        let found = check(&[text]);
        let places: Vec<_> = found.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(places, ["0.yaml:4", "0.yaml:5", "0.yaml:8", "0.yaml:10", "0.yaml:13"], "{found:#?}");
    }
}
