//! What a caller is told when a command is not carried out: the one table of domain errors and gRPC codes.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

use crate::control::ledger::Error;
use crate::control::store;
use crate::flag::{ItemKind, Problem, Problems};
use crate::wire::replication::Malformed;

/// Of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "yardarm";
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Details travel in a header, which clients bound: gRPC's usual limit for all headers together is 8 KiB, and base64 takes a third.
const DETAILS_BYTES: usize = 4096;
const MESSAGE_BYTES: usize = 1024;

pub(in crate::control) fn malformed(problem: impl Into<Option<Malformed>>) -> Status {
    let Malformed { field, problem } = problem.into().unwrap_or(Malformed { field: "", problem: "the request is malformed".into() });
    refused(Code::InvalidArgument, "MALFORMED", &format!("{field}: {problem}"), [], |details| {
        details.add_bad_request_violation(field, problem);
    })
}

pub(super) fn draining() -> Status {
    refused(Code::Unavailable, "DRAINING", "the control plane shuts down; try again", [], |details| {
        details.set_retry_info(Some(RETRY_AFTER));
    })
}

pub(in crate::control) fn status(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Malformed { field, problem } => malformed(Malformed { field, problem }),
        Error::Invalid(problems) => invalid(&problems),
        Error::UnknownEnvironment { name, nearest } => {
            let metadata = [("environment", name), ("nearest", nearest.unwrap_or_default())];
            refused(Code::NotFound, "ENVIRONMENT_NOT_FOUND", &message, metadata, |_| {})
        }
        Error::UnknownItem { environment, item, nearest } => {
            let reason = match item.kind {
                ItemKind::Flag => "FLAG_NOT_FOUND",
                ItemKind::Segment => "SEGMENT_NOT_FOUND",
            };
            let metadata = [("environment", environment), ("key", item.key), ("nearest", nearest.unwrap_or_default())];
            refused(Code::NotFound, reason, &message, metadata, |_| {})
        }
        Error::UnknownRevision { environment, item, revision } => {
            let metadata = [("environment", environment), ("key", item.key), ("revision", revision.to_string())];
            refused(Code::NotFound, "REVISION_NOT_FOUND", &message, metadata, |_| {})
        }
        Error::UnknownHook { environment, flag, id } => {
            let metadata = [("environment", environment), ("key", flag), ("id", id)];
            refused(Code::NotFound, "HOOK_NOT_FOUND", &message, metadata, |_| {})
        }
        Error::EnvironmentExists { name } => refused(Code::AlreadyExists, "ENVIRONMENT_EXISTS", &message, [("environment", name)], |_| {}),
        Error::Conflict { expected, changed } => {
            let metadata = [("expected_revision", expected.to_string())];
            let violations = changed.iter().map(|change| ("CHANGED", change.item.to_string(), change.to_string()));
            refused(Code::Aborted, "CONFLICT", &message, metadata, |details| preconditions(details, violations))
        }
        Error::InUse { item, users } => {
            let violations = users.iter().map(|user| ("IN_USE", item.to_string(), format!("{user} refers to it")));
            refused(Code::FailedPrecondition, "IN_USE", &message, [], |details| preconditions(details, violations))
        }
        Error::NotKilled { flag, .. } => refused(Code::FailedPrecondition, "NOT_KILLED", &message, [("key", flag)], |_| {}),
        Error::TripObsolete { flag, .. } => refused(Code::FailedPrecondition, "TRIP_OBSOLETE", &message, [("key", flag)], |_| {}),
        Error::NoRollout { flag } => refused(Code::FailedPrecondition, "NO_ROLLOUT", &message, [("key", flag)], |_| {}),
        Error::RolloutRefused { flag, .. } => refused(Code::FailedPrecondition, "ROLLOUT_REFUSED", &message, [("key", flag)], |_| {}),
        Error::BadBackup { .. } => refused(Code::InvalidArgument, "BAD_BACKUP", &message, [], |_| {}),
        Error::Aborted { problem } => {
            tracing::error!(problem, "a command was given up");
            refused(Code::Internal, "ABANDONED", &message, [], |_| {})
        }
        Error::Store(problem) => {
            tracing::error!(%problem, "the store failed a command");
            let (code, reason) = match problem {
                store::Error::Conflict { .. } | store::Error::Unavailable { .. } | store::Error::Locked { .. } => {
                    (Code::Unavailable, "STORE_UNAVAILABLE")
                }
                store::Error::Corrupt { .. } => (Code::DataLoss, "STORE_CORRUPT"),
            };
            refused(code, reason, &message, [], |details| {
                if code == Code::Unavailable {
                    details.set_retry_info(Some(RETRY_AFTER));
                }
            })
        }
    }
}

/// Each problem is a field violation, as many as fit.
fn invalid(problems: &Problems) -> Status {
    let count = problems.len();
    let (mut violations, mut bytes) = (Vec::new(), 0);
    for problem in problems {
        let violation = violation(problem);
        bytes += violation.field.len() + violation.description.len() + 8;
        if bytes > DETAILS_BYTES && !violations.is_empty() {
            break;
        }
        violations.push(violation);
    }
    let left_out = count - violations.len();
    if left_out > 0 {
        violations.push(FieldViolation::new("", format!("and {left_out} more; `yardarm flag lint` shows them all")));
    }
    let message = format!("{count} problem{} in the flags and segments; nothing was changed", if count == 1 { "" } else { "s" });
    refused(Code::InvalidArgument, "INVALID", &message, [], |details| {
        details.set_bad_request(violations);
    })
}

fn violation(problem: &Problem) -> FieldViolation {
    let Problem { path, found, expected, hint, .. } = problem;
    let hint = hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
    let mut description = format!("found {found}, expected {expected}{hint}");
    cut(&mut description, MESSAGE_BYTES);
    FieldViolation::new(path, description)
}

fn preconditions(details: &mut ErrorDetails, violations: impl Iterator<Item = (&'static str, String, String)>) {
    let mut bytes = 0;
    let violations: Vec<_> = violations
        .take_while(|(_, subject, description)| {
            bytes += subject.len() + description.len() + 16;
            bytes <= DETAILS_BYTES
        })
        .map(|(kind, subject, description)| PreconditionViolation::new(kind, subject, description))
        .collect();
    details.set_precondition_failure(violations);
}

fn refused<const N: usize>(
    code: Code,
    reason: &str,
    message: &str,
    metadata: [(&str, String); N],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, mut value)| {
            cut(&mut value, 256);
            (key.to_owned(), value)
        })
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    more(&mut details);
    let mut message = message.to_owned();
    cut(&mut message, MESSAGE_BYTES);
    Status::with_error_details(code, message, details)
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ledger::Conflicting;
    use crate::flag::ItemName;

    #[test]
    fn no_error_is_larger_than_a_client_takes() {
        let mut problems = Problems::default();
        for n in 0..1_000 {
            let (path, found) = (format!("flags.{}.rules[{n}]", "x".repeat(128)), "y".repeat(1_000));
            problems.push(Problem { path, line: None, found, expected: "less".into(), hint: None });
        }
        let changing = |n: u64| Conflicting { item: ItemName::flag("x".repeat(128)), revision: n, actor: "a".repeat(256), at_us: 0 };
        let users: Vec<_> = (0..20_000).map(|n| ItemName::flag(format!("{n:0128}"))).collect();
        let errors = [
            Error::Invalid(problems),
            Error::Conflict { expected: 1, changed: (0..20_000).map(changing).collect() },
            Error::InUse { item: ItemName::flag("a"), users },
            Error::UnknownEnvironment { name: "é".repeat(100_000), nearest: None },
            Error::Malformed { field: "key", problem: "z".repeat(1_000) },
        ];
        for error in errors {
            let status = status(error);
            let details = status.details().len() * 4 / 3;
            let message: usize = status.message().bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum();
            assert!(details + message < 8 * 1024, "{} + {}: {status:?}", details, message);
        }
    }

    #[test]
    fn every_problem_of_a_document_is_a_field() {
        let mut problems = Problems::default();
        for path in ["flags.a.rules[0].serve", "flags.b"] {
            let (found, expected) = ("\"onn\"".to_owned(), "a variant".to_owned());
            problems.push(Problem { path: path.into(), line: Some(3), found, expected, hint: Some("did you mean \"on\"?".into()) });
        }
        let status = status(Error::Invalid(problems));
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!((status.code(), violations.len()), (Code::InvalidArgument, 2));
        assert_eq!(violations[0].field, "flags.a.rules[0].serve");
        assert_eq!(violations[0].description, "found \"onn\", expected a variant; did you mean \"on\"?");
        assert_eq!(details.error_info().map(|info| (info.reason.as_str(), info.domain.as_str())), Some(("INVALID", "yardarm")));
    }

    #[test]
    fn a_conflict_says_who_changed_what() {
        let changed =
            vec![Conflicting { item: ItemName::flag("checkout"), revision: 7, actor: "ben".into(), at_us: 1_763_690_400_000_000 }];
        let status = status(Error::Conflict { expected: 5, changed });
        assert_eq!(status.code(), Code::Aborted);
        let details = status.get_error_details();
        let violation = &details.precondition_failure().unwrap().violations[0];
        assert_eq!(violation.subject, "flag checkout");
        assert_eq!(violation.description, "flag checkout by ben at revision 7, 2025-11-21T02:00:00Z");
        assert_eq!(details.error_info().unwrap().metadata["expected_revision"], "5");
    }
}
