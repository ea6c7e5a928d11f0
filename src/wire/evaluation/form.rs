//! An answer in the form in which a protocol of OpenFeature's SDKs sends it.
//!
//! While the flag, the variant, the rule and the reason are the same, so is every byte of it: such an answer may be kept and sent again.

use crate::flag::ValueType;

use super::answer::Answer;
use super::flagd::{self, Definition, Service, Type};
use super::ofrep;
use super::selection::{Scope, Selection};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A `Resolve…Response` with its frame, the same under each name.
    Resolved(Type),
    /// A flag of a `ResolveAllResponse`.
    OneOfAll(Service),
    /// OFREP's JSON, of one flag or of one among all.
    Ofrep,
}

impl Form {
    /// Of each form another, and another where the source is told.
    pub fn number(self, scope: Scope<'_>) -> u8 {
        let form = match self {
            Self::Resolved(of) => of as u8,
            Self::OneOfAll(service) => 8 + service as u8,
            Self::Ofrep => 16,
        };
        form << 1 | u8::from(matches!(scope.selection, Selection::Source(_)))
    }

    /// `of`: the type of the flag. The answer is none that this protocol has a status for.
    pub fn write(self, answer: &Answer<'_>, of: ValueType, definition: &Definition, scope: Scope<'_>) -> Vec<u8> {
        match self {
            Self::Resolved(asked) => flagd::resolved(answer, asked, definition, scope),
            Self::OneOfAll(service) => flagd::one_of_all(answer, of, service, definition, scope),
            Self::Ofrep => ofrep::evaluated(answer, definition, scope),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_forms_have_a_number_together() {
        let types = [Type::Boolean, Type::String, Type::Float, Type::Int, Type::Object];
        let services = [Service::V2, Service::V1, Service::Schema];
        let forms = types.map(Form::Resolved).into_iter().chain(services.map(Form::OneOfAll)).chain([Form::Ofrep]);
        let selections = [Selection::All, Selection::Source("a".to_owned())];
        let numbers = forms.flat_map(|form| selections.each_ref().map(|selection| form.number(Scope { selection, environment: "prod" })));
        let numbers: Vec<_> = numbers.collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        let set = Selection::Set("prod".to_owned());
        let (all, set) = (Scope { selection: &selections[0], environment: "prod" }, Scope { selection: &set, environment: "prod" });
        assert_eq!(Form::Ofrep.number(all), Form::Ofrep.number(set));
    }
}
