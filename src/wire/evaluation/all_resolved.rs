//! A `ResolveAllResponse` under construction: what is written of each flag is put after the other.

use bytes::Bytes;

use super::answer::{HEAD, with_head};
use super::flagd::Service;
use super::form::{Encoding, Form};
use super::ofrep::put_json;
use super::selection::Scope;
use super::value::{put_delimited, struct_message};

#[derive(Debug)]
pub struct AllResolved {
    service: Service,
    encoding: Encoding,
    /// From the head of the frame on, for which there is room, or from the first brace.
    out: Vec<u8>,
}

impl AllResolved {
    pub fn new(service: Service, encoding: Encoding) -> Self {
        let out = match encoding {
            Encoding::Proto => vec![0; HEAD],
            Encoding::Json => br#"{"flags":{"#.to_vec(),
        };
        Self { service, encoding, out }
    }

    /// In which its flags are.
    pub fn form(service: Service, encoding: Encoding) -> Form {
        match encoding {
            Encoding::Proto => Form::OneOfAll(service),
            Encoding::Json => Form::OneOfAllInJson(service),
        }
    }

    pub fn push(&mut self, flag: &[u8]) {
        if self.encoding == Encoding::Json && !self.out.ends_with(b"{") {
            self.out.push(b',');
        }
        self.out.extend_from_slice(flag);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The message with its frame, or the text.
    pub fn finish(self, scope: Scope<'_>) -> Bytes {
        let Self { service, encoding, mut out } = self;
        let has_metadata = service != Service::Schema;
        match encoding {
            Encoding::Proto => {
                if has_metadata {
                    put_delimited(&mut out, 2, &struct_message(&scope.metadata()));
                }
                out = with_head(out);
            }
            Encoding::Json => {
                out.push(b'}');
                if has_metadata {
                    out.extend_from_slice(br#","metadata":"#);
                    put_json(&mut out, &scope.metadata());
                }
                out.push(b'}');
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::flag::{Reason, ValueType};
    use crate::wire::evaluation::flagd::Definition;
    use crate::wire::evaluation::selection::Selection;
    use crate::wire::evaluation::{Answer, EncodedValue, flagd_json};

    #[test]
    fn the_text_is_what_the_message_is_in_json() {
        let (definition, scope) = (Definition::default(), Scope { selection: &Selection::All, environment: "prod" });
        let answers =
            [("a", Some(EncodedValue::String("x\"y\n"))), ("b{", Some(EncodedValue::Number(2.0))), ("c", None)].map(|(flag_key, value)| {
                Answer {
                    flag_key,
                    value,
                    variant: if value.is_some() { "on" } else { "" },
                    reason: Reason::Disabled,
                    rule: "",
                    bucket: None,
                    revision: 7,
                    age_ms: 0,
                    error: None,
                    message: "",
                }
            });
        for service in [Service::V1, Service::Schema] {
            for few in 0..=answers.len() {
                let [message, text] = [Encoding::Proto, Encoding::Json].map(|encoding| {
                    let mut all = AllResolved::new(service, encoding);
                    let form = AllResolved::form(service, encoding);
                    answers[..few].iter().for_each(|answer| all.push(&form.write(answer, ValueType::String, &definition, scope)));
                    all.finish(scope)
                });
                assert_eq!(message[1..HEAD], u32::try_from(message.len() - HEAD).unwrap().to_be_bytes());
                let text: Json = serde_json::from_slice(&text).unwrap();
                assert_eq!(text, flagd_json::all_resolved(&message[HEAD..], service), "{service:?} {few}");
                assert_eq!(text["flags"].as_object().unwrap().len(), few);
            }
        }
    }
}
