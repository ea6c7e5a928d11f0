//! `{"$ref": "name"}`: an entry of `$evaluators`, put in its place where the document is read. A flag is stored and sent by itself, so that
//! what it names has to come along; flagd's sync payload has references written out as well (flagd.md 1.3).

use serde_json::{Map, Value as Json};

use super::super::limits;
use super::super::node::quoted;
use super::super::problem::{Path as Place, Problems, way};

pub(super) const REFERENCE: &str = "$ref";

/// Writes out every reference in `targeting`. One that leads nowhere stays, for [`super::Program::compile`] to refuse the flag; entries that
/// name each other in a circle, or that make too much of a rule, are told here.
pub(in super::super) fn write_out(targeting: &mut Json, evaluators: &Map<String, Json>, place: Place<'_>, problems: &mut Problems) {
    let mut writer = Writer { evaluators, within: Vec::new(), bytes: 0, told: false, problems };
    writer.write_out(targeting, place);
}

struct Writer<'w> {
    evaluators: &'w Map<String, Json>,
    /// Names that are being written out.
    within: Vec<&'w str>,
    /// About those of all entries that were put in, those within others counted each time.
    bytes: usize,
    told: bool,
    problems: &'w mut Problems,
}

impl<'w> Writer<'w> {
    fn write_out(&mut self, json: &mut Json, place: Place<'_>) {
        if self.told {
            return;
        }
        match json {
            Json::Object(fields) => {
                let name = if fields.len() == 1 { fields.get(REFERENCE).and_then(Json::as_str) } else { None };
                if let Some((name, entry)) = name.and_then(|name| self.evaluators.get_key_value(name)) {
                    *json = self.entry(name, entry, place).unwrap_or_default();
                    return;
                }
                fields.iter_mut().for_each(|(key, field)| self.write_out(field, place.key(key)));
            }
            Json::Array(elements) => {
                elements.iter_mut().enumerate().for_each(|(index, element)| self.write_out(element, place.index(index)));
            }
            _ => {}
        }
    }

    fn entry(&mut self, name: &'w str, entry: &'w Json, place: Place<'_>) -> Option<Json> {
        if let Some(start) = self.within.iter().position(|outer| *outer == name) {
            let circle = way(self.within[start..].iter().copied().chain([name]));
            self.tell(place, format!("a reference that leads to itself: {circle}"), "no circle".to_owned());
            return None;
        }
        self.bytes += bytes(entry);
        if self.bytes > limits::FLAG_BYTES {
            let found = format!("a reference to {}, with which it is larger than a flag may be", quoted(name));
            self.tell(place, found, format!("at most {} bytes", limits::FLAG_BYTES));
            return None;
        }
        self.within.push(name);
        let mut json = entry.clone();
        self.write_out(&mut json, place);
        self.within.pop();
        Some(json)
    }

    /// Nothing more is written out after that.
    fn tell(&mut self, place: Place<'_>, found: String, expected: String) {
        self.told = true;
        self.problems.found(place, found, expected);
    }
}

/// At least one of each value, and those of texts.
fn bytes(json: &Json) -> usize {
    match json {
        Json::String(text) => 1 + text.len(),
        Json::Array(elements) => 1 + elements.iter().map(bytes).sum::<usize>(),
        Json::Object(fields) => 1 + fields.iter().map(|(key, field)| key.len() + bytes(field)).sum::<usize>(),
        _ => 1,
    }
}
