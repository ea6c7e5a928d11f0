//! What a change does to a definition, as the lines of YAML that it takes away and adds.

use owo_colors::{OwoColorize as _, Style};
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

use super::exit::Failure;
use super::output::Out;
use super::view::Change;

/// Lines that stay the same and are shown round a change.
const CONTEXT: usize = 3;

pub fn print(changes: &[Change], out: &mut Out) -> Result<(), Failure> {
    lines(changes)?.into_iter().try_for_each(|line| out.line(line))
}

/// One heading and its lines for each definition that changes.
pub fn lines(changes: &[Change]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for change in changes {
        let (sign, style) = match (&change.before, &change.after) {
            (Json::Null, _) => ('+', Style::new().green().bold()),
            (_, Json::Null) => ('-', Style::new().red().bold()),
            _ => ('~', Style::new().yellow().bold()),
        };
        lines.push(format!("{sign} {} {}", change.kind, change.key).style(style).to_string());
        compare(&change.before, &change.after, &mut lines)?;
    }
    Ok(lines)
}

fn compare(before: &Json, after: &Json, lines: &mut Vec<String>) -> Result<(), Failure> {
    let (before, after) = (yaml(before)?, yaml(after)?);
    let diff = TextDiff::from_lines(&before, &after);
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            lines.push("    ...".dimmed().to_string());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (sign, style) = match change.tag() {
                ChangeTag::Equal => (' ', Style::new()),
                ChangeTag::Delete => ('-', Style::new().red()),
                ChangeTag::Insert => ('+', Style::new().green()),
            };
            lines.push(format!("  {sign} {}", change.value().trim_end_matches('\n')).style(style).to_string());
        }
    }
    Ok(())
}

/// A definition as people write it; nothing for one that is not there.
pub fn yaml(definition: &Json) -> Result<String, Failure> {
    match definition {
        Json::Null => Ok(String::new()),
        some => serde_yaml_ng::to_string(some).map_err(|error| Failure::unable(format!("this definition has no form as YAML: {error}"))),
    }
}
