//! One flag of a document, kept for as long as it is what it was made from: of 10,000 flags a change touches one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::flag::{CompiledFlag, Lookup, Obstacle, overridden, translate};
use crate::replica::{Sheet, Sheets};
use crate::wire::evaluation::flagd::Definition;

pub(super) struct Fragment {
    sheet: Sheet,
    /// For selectors.
    pub(super) definition: Definition,
    /// Prerequisites, whatever they are; `None`: not there.
    reads: BTreeMap<String, Option<Sheet>>,
    /// `"key":{…}`
    pub(super) json: Result<Box<str>, Obstacle>,
}

impl Fragment {
    pub(super) fn of(sheet: &Sheet, sheets: &Sheets, environment: &str) -> Self {
        let reading = Reading { sheets, reads: RefCell::default() };
        let json = written(sheet, &reading, environment);
        let definition = Definition::of(&sheet.definition);
        Self { sheet: sheet.clone(), definition, reads: reading.reads.into_inner(), json }
    }

    pub(super) fn holds(&self, sheet: &Sheet, sheets: &Sheets) -> bool {
        let is_same = |(key, before): (&String, &Option<Sheet>)| match (before, sheets.get(key)) {
            (Some(before), Some(now)) => before.is(now),
            (None, None) => true,
            _ => false,
        };
        self.sheet.is(sheet) && self.reads.iter().all(is_same)
    }
}

fn written(sheet: &Sheet, reading: &Reading<'_>, environment: &str) -> Result<Box<str>, Obstacle> {
    let flag = reading.sheets.flag(sheet).ok_or(Obstacle::Definition)?;
    let document = reading.sheets.document(sheet).map_err(|_| Obstacle::Definition)?;
    let translation = translate(&flag, &document, reading)?;
    let key = serde_json::Value::from(overridden::key(&sheet.key));
    Ok(format!("{key}:{}", translation.to_json(environment)).into())
}

/// Notes what is looked up.
struct Reading<'s> {
    sheets: &'s Sheets,
    reads: RefCell<BTreeMap<String, Option<Sheet>>>,
}

impl Lookup for Reading<'_> {
    fn flag(&self, key: &str) -> Option<CompiledFlag> {
        let sheet = self.sheets.get(key);
        self.reads.borrow_mut().insert(key.to_owned(), sheet.cloned());
        self.sheets.flag(sheet?)
    }
}
