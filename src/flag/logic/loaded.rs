//! Lists and objects that an evaluation has brought over from the context, each once. What is in is lent out while more comes in, without
//! `unsafe`: nothing ever leaves.

use std::cell::OnceCell;

use serde_json::Value as Json;

#[derive(Default)]
pub(super) struct Loaded(OnceCell<Box<Entry>>);

struct Entry {
    path: Box<str>,
    json: Json,
    next: Loaded,
}

impl Loaded {
    /// What lies at `path`, null for nothing, and whether it had to be loaded.
    pub(super) fn get(&self, path: &str, load: impl FnOnce() -> Option<Json>) -> (&Json, bool) {
        let mut place = self;
        while let Some(entry) = place.0.get() {
            if *entry.path == *path {
                return (&entry.json, false);
            }
            place = &entry.next;
        }
        let entry = || Box::new(Entry { path: path.into(), json: load().unwrap_or_default(), next: Self::default() });
        (&place.0.get_or_init(entry).json, true)
    }
}
