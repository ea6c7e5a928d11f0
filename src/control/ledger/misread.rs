//! A document that cannot be read in full is refused together with everything else that is wrong with it, as `flag lint` tells it: whoever
//! mends it does so once.

use std::collections::BTreeSet;

use super::plan::{Basis, Definition};
use crate::control::audit::Action;
use crate::flag::{ItemKind, Problem, Problems};

/// What `problems` says, and what checking the definitions that could be read adds to it, in the order of the text. What is there only
/// because something could not be read is not told.
pub(super) fn every_problem(document: &str, problems: &Problems, readable: &[Definition], basis: Basis) -> Problems {
    let items: BTreeSet<String> = readable.iter().map(|definition| place_of(definition.name.kind, &definition.name.key)).collect();
    let misread: BTreeSet<_> = problems.iter().map(|problem| place(&items, &problem.path)).collect();
    // At the top level anything may have been meant.
    let is_of = |item: &str, kind: &str| item.starts_with(kind) || !item.contains('.');
    let are_missing = |kind: &str| misread.iter().any(|(item, _)| is_of(item, kind) && !items.contains(*item));
    let (flags_are_missing, segments_are_missing) = (are_missing("flags."), are_missing("segments."));
    let is_consequence = |problem: &Problem| {
        let (item, part) = place(&items, &problem.path);
        // A name may lead to a flag or segment that is there and could not be read.
        (flags_are_missing && part == ".prerequisites")
            || (segments_are_missing && problem.path.ends_with(".segment"))
            || [part, "", ".variants"].into_iter().any(|part| misread.contains(&(item, part)))
    };
    let found = basis.check(String::new(), Action::Apply, String::new()).err().unwrap_or_default();
    let mut all = problems.clone();
    found.into_iter().filter(|problem| !is_consequence(problem)).for_each(|problem| all.push(problem));
    all.located_in(document)
}

fn place_of(kind: ItemKind, key: &str) -> String {
    match kind {
        ItemKind::Flag => format!("flags.{key}"),
        ItemKind::Segment => format!("segments.{key}"),
    }
}

/// A path as the flag or segment that it is in (the longest one that was read, because keys have dots in them too) and the part of that:
/// `flags.checkout` and `.rules`.
fn place<'p>(items: &BTreeSet<String>, path: &'p str) -> (&'p str, &'p str) {
    let mut ends = [path.len()].into_iter().chain(path.rmatch_indices(['.', '[']).map(|(end, _)| end));
    let end = ends.find(|end| items.contains(&path[..*end])).unwrap_or(path.len());
    let (item, rest) = path.split_at(end);
    let next = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '.' | '[')).map_or(rest.len(), |(at, _)| at);
    (item, &rest[..next])
}
