//! All flags of one state, for who makes something else of them: what each is, as cheaply as a list of them can be taken.

use std::sync::Arc;

use bytes::Bytes;

use crate::flag::{CompiledFlag, Flag, Lookup, Naming, Problems};

use super::apply::compile_definition;
use super::map::Replica;
use super::segments::Served;

/// A flag as it is held.
#[derive(Clone)]
pub struct Sheet {
    pub key: Arc<str>,
    /// Canonical JSON.
    pub definition: Bytes,
    pub is_killed: bool,
    /// `None`: nobody has asked for it yet, and it is kept as its definition.
    held: Option<(u64, CompiledFlag)>,
}

/// In the order of their keys.
pub struct Sheets {
    all: Vec<Sheet>,
    naming: Naming,
    segments: Arc<Served>,
    unix_s: i64,
}

impl Replica {
    pub fn sheets(&self) -> Sheets {
        let all = self.batch(|view| view.all().into_iter().filter_map(|key| self.sheet(key)).collect());
        Sheets { all, naming: self.0.naming, segments: self.0.segments.load_full(), unix_s: self.unix_s() }
    }

    fn sheet(&self, key: Arc<str>) -> Option<Sheet> {
        let slot = self.0.flags.get(&key)?;
        let held = slot.ready().map(|held| (held.number(), held.flag.clone()));
        let definition = slot.definition().clone();
        Some(Sheet { is_killed: slot.is_killed(), definition, held, key: Arc::clone(slot.key()) })
    }
}

impl Sheet {
    /// Whether what was worked out for the other holds for this one: the same definition, kill and segments.
    pub fn is(&self, other: &Self) -> bool {
        let number = |sheet: &Self| sheet.held.as_ref().map(|(number, _)| *number);
        self.is_killed == other.is_killed && number(self) == number(other) && std::ptr::eq(&*self.definition, &*other.definition)
    }
}

impl Sheets {
    pub fn iter(&self) -> impl Iterator<Item = &Sheet> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Sheet> {
        self.all.binary_search_by(|sheet| (*sheet.key).cmp(key)).ok().and_then(|index| self.all.get(index))
    }

    /// As people wrote it.
    pub fn document(&self, sheet: &Sheet) -> Result<Flag, Problems> {
        Flag::from_json_named(self.naming, &sheet.definition)
    }

    /// The flag, compiled for this once if it is kept as its definition: whoever wants all flags does not make all of them stay compiled.
    pub fn flag(&self, sheet: &Sheet) -> Option<CompiledFlag> {
        match &sheet.held {
            Some((_, flag)) => Some(flag.clone()),
            None => {
                let flag = compile_definition(self.naming, &sheet.key, &sheet.definition, self.segments.compiled()).ok()?;
                Some(flag.with_kill(sheet.is_killed))
            }
        }
    }
}

impl Lookup for Sheets {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        self.get(key).and_then(|sheet| Self::flag(self, sheet))
    }

    fn unix_s(&self) -> i64 {
        self.unix_s
    }
}
