//! The flags that a selection takes. Who selects nothing asks by key, and pays one branch for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::flag::{ErrorCode, ItemKind, overridden};
use crate::replica::{Held, View};
use crate::sidecar::pod::Pod;
use crate::wire::evaluation::selection::Scope;

use super::Asking;

impl Pod {
    /// Where the flag of this key is held that is taken; nowhere, if none is.
    #[inline]
    pub(in crate::sidecar) fn place<'k>(&self, key: &'k str, scope: Scope<'_>) -> Cow<'k, str> {
        if overridden::is_place(key) {
            return Cow::Borrowed(overridden::NOWHERE);
        }
        if scope.selection.is_all() || !self.replica.is_usable() {
            return Cow::Borrowed(key);
        }
        self.replica.batch(|view| view.place(key, scope)).unwrap_or(Cow::Borrowed(overridden::NOWHERE))
    }
}

impl Pod {
    /// A flag that is not found because its definition was refused, and not because there is none. To flagd that is another error.
    #[inline]
    pub(in crate::sidecar) fn refused(&self, key: &str, error: Option<ErrorCode>, asking: &Asking) -> bool {
        error == Some(ErrorCode::FlagNotFound)
            && asking.selection.is_all()
            && self.replica.rejected().iter().any(|rejected| rejected.name.kind == ItemKind::Flag && rejected.name.key == key)
    }
}

impl View<'_> {
    pub(in crate::sidecar) fn place<'k>(&self, key: &'k str, scope: Scope<'_>) -> Option<Cow<'k, str>> {
        if overridden::is_place(key) {
            return None;
        }
        if self.is_taken(key, scope) {
            return Some(Cow::Borrowed(key));
        }
        let place = self.overridden(key).into_iter().find(|place| self.is_taken(place, scope))?;
        Some(Cow::Owned(place.to_string()))
    }

    /// Where each flag is held that is taken, in the order of the keys; of each key one.
    pub(in crate::sidecar) fn selected(&self, scope: Scope<'_>) -> Vec<Arc<str>> {
        if scope.selection.is_all() {
            return self.keys("");
        }
        let mut places: BTreeMap<String, Arc<str>> = BTreeMap::new();
        // What is held under its own key comes last and stays.
        for place in self.all().into_iter().filter(|place| self.is_taken(place, scope)) {
            places.insert(overridden::key(&place).to_owned(), place);
        }
        places.into_values().collect()
    }

    fn is_taken(&self, place: &str, scope: Scope<'_>) -> bool {
        let takes = |held: &Held| scope.takes(held.flagd());
        self.with(place, |held| held.is_some_and(takes))
    }
}
