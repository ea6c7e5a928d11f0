//! An answer in the form in which a protocol of OpenFeature's SDKs sends it.
//!
//! While the flag, the variant, the rule and the reason are the same, so is every byte of it: such an answer may be kept and sent again.

use crate::flag::ValueType;

use super::answer::{Answer, HEAD};
use super::flagd::{self, Definition, Service, Type};
use super::selection::{Scope, Selection};
use super::{flagd_json, ofrep};

/// Of flagd's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Proto,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A `Resolve…Response` with its frame, the same under each name.
    Resolved(Type),
    /// The same in JSON, which says what is not set, but under v2.
    ResolvedInJson(Type, Service),
    /// A flag of a `ResolveAllResponse`.
    OneOfAll(Service),
    OneOfAllInJson(Service),
    /// OFREP's JSON, of one flag or of one among all.
    Ofrep,
}

impl Form {
    /// Of each form another, and another where the source is told.
    pub fn number(self, scope: Scope<'_>) -> u8 {
        let form = match self {
            Self::Resolved(of) => of as u8,
            Self::OneOfAll(service) => 8 + service as u8,
            Self::OneOfAllInJson(service) => 16 + service as u8,
            Self::Ofrep => 24,
            Self::ResolvedInJson(of, service) => 32 + 4 * of as u8 + service as u8,
        };
        form << 1 | u8::from(matches!(scope.selection, Selection::Source(_)))
    }

    /// `of`: the type of the flag. The answer is none that this protocol has a status for.
    pub fn write(self, answer: &Answer<'_>, of: ValueType, definition: &Definition, scope: Scope<'_>) -> Vec<u8> {
        match self {
            Self::Resolved(asked) => flagd::resolved(answer, asked, definition, scope),
            Self::ResolvedInJson(asked, service) => {
                let frame = flagd::resolved(answer, asked, definition, scope);
                flagd_json::resolved(&frame[HEAD..], asked, service).to_string().into_bytes()
            }
            Self::OneOfAll(service) => flagd::one_of_all(answer, of, service, definition, scope),
            Self::OneOfAllInJson(service) => flagd_json::one_of_all(&flagd::one_of_all(answer, of, service, definition, scope), service),
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
        let in_json = types.into_iter().flat_map(|of| services.map(|service| Form::ResolvedInJson(of, service)));
        let of_all = services.into_iter().flat_map(|service| [Form::OneOfAll(service), Form::OneOfAllInJson(service)]);
        let forms = types.map(Form::Resolved).into_iter().chain(in_json).chain(of_all).chain([Form::Ofrep]);
        let selections = [Selection::All, Selection::Source("a".to_owned())];
        let numbers = forms.flat_map(|form| selections.each_ref().map(|selection| form.number(Scope { selection, environment: "prod" })));
        let numbers: Vec<_> = numbers.collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        let set = Selection::Set("prod".to_owned());
        let (all, set) = (Scope { selection: &selections[0], environment: "prod" }, Scope { selection: &set, environment: "prod" });
        assert_eq!(Form::Ofrep.number(all), Form::Ofrep.number(set));
    }
}
