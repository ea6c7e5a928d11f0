//! gRPC errors in lines that people can act on: the message, the fields that are wrong, and when to try again.

use std::error::Error as _;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::duration::rough;
use super::exit::{Failure, innermost};

pub fn of_control(status: Status) -> Failure {
    failure("the control plane", status)
}

/// Of a call that changes something. A control plane carries out what it was asked for also when the answer does not reach anybody.
pub fn of_change(status: Status) -> Failure {
    let is_open = match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => true,
        // The connection broke; a refusal has no source.
        Code::Unavailable | Code::Unknown => status.source().is_some(),
        _ => false,
    };
    let mut failure = of_control(status);
    if is_open {
        failure.message += "; the change may have been made all the same, see `yardarm audit`";
    }
    failure
}

pub fn of_sidecar(status: Status) -> Failure {
    failure("the sidecar", status)
}

/// The failure that a call to `whom` ("the control plane", "the sidecar") ended with.
fn failure(whom: &str, status: Status) -> Failure {
    let message = status.message();
    match status.code() {
        // tonic tells its own time-out as CANCELLED, a server as DEADLINE_EXCEEDED.
        Code::DeadlineExceeded | Code::Cancelled => {
            Failure::unable(format!("{whom} did not answer in time; look whether it is well, or give it more with --timeout"))
        }
        Code::Unavailable => match status.source() {
            Some(broken) => Failure::unable(format!("the connection to {whom} broke: {}; try again", innermost(broken))),
            None => Failure::unable(format!("{whom} cannot answer now: {message}")),
        },
        Code::Unimplemented => {
            Failure::unable(format!("{whom} does not know this call ({message}); is it an older version than this one?"))
        }
        Code::Internal | Code::Unknown | Code::DataLoss => Failure::unable(format!("{whom} failed: {message}; its log says more")),
        Code::NotFound if !message.contains("did you mean") => {
            Failure::problem(format!("{message}; `yardarm flag list` and `yardarm env list` show what there is"))
        }
        _ => Failure::problem(message),
    }
    .with_details(details(&status))
}

fn details(status: &Status) -> Vec<String> {
    let found = status.get_error_details();
    let fields = found.bad_request().into_iter().flat_map(|bad| &bad.field_violations).map(|field| match field.field.as_str() {
        "" => field.description.clone(),
        name => format!("{name}: {}", field.description),
    });
    let preconditions =
        found.precondition_failure().into_iter().flat_map(|failed| &failed.violations).map(|violation| match violation.subject.as_str() {
            "" => violation.description.clone(),
            subject => format!("{subject}: {}", violation.description),
        });
    let quotas = found
        .quota_failure()
        .into_iter()
        .flat_map(|failed| &failed.violations)
        .map(|violation| format!("{}: {}", violation.subject, violation.description));
    let help = found.help().into_iter().flat_map(|help| &help.links).map(|link| format!("{}: {}", link.description, link.url));
    let retry = found.retry_info().and_then(|retry| retry.retry_delay).map(|delay| format!("try again in {}", rough(delay)));
    let all = fields.chain(preconditions).chain(quotas).chain(help).chain(retry);
    // A message about one field is that field and what is wrong with it.
    all.filter(|detail| detail != status.message()).collect()
}

/// Whether a write lost against another one: the revision that it expected is not the newest any more.
pub fn is_conflict(status: &Status) -> bool {
    status.code() == Code::Aborted
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::super::exit::Exit;

    use super::*;

    #[test]
    fn every_field_that_is_wrong_has_a_line() {
        let violations = vec![FieldViolation::new("flags.a.rules[0].serve", "no variant `on`"), FieldViolation::new("", "one more")];
        let status = Status::with_error_details(Code::InvalidArgument, "2 problems", ErrorDetails::with_bad_request(violations));
        let failure = failure("the control plane", status);
        assert_eq!(failure.exit, Exit::Problem);
        assert_eq!(failure.message, "2 problems");
        assert_eq!(failure.details, ["flags.a.rules[0].serve: no variant `on`", "one more"]);
    }

    #[test]
    fn what_the_message_says_is_not_said_again() {
        let details = ErrorDetails::with_bad_request(vec![FieldViolation::new("to", "found \"a b\"")]);
        let failure = failure("x", Status::with_error_details(Code::InvalidArgument, "to: found \"a b\"", details));
        assert_eq!((failure.message.as_str(), failure.details), ("to: found \"a b\"", Vec::new()));
    }

    #[test]
    fn a_change_without_an_answer_may_have_been_made() {
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        for status in [Status::deadline_exceeded("x"), Status::cancelled("Timeout expired"), broken] {
            assert!(!of_control(status.clone()).message.contains("audit"));
            assert!(of_change(status).message.ends_with("see `yardarm audit`"));
        }
        for status in [Status::unavailable("draining"), Status::not_found("flag a; did you mean `b`?"), Status::aborted("changed")] {
            assert!(!of_change(status).message.contains("audit"));
        }
    }

    #[test]
    fn a_refusal_is_a_problem_and_an_absence_is_not() {
        for code in
            [Code::NotFound, Code::Aborted, Code::AlreadyExists, Code::FailedPrecondition, Code::ResourceExhausted, Code::PermissionDenied]
        {
            assert_eq!(failure("x", Status::new(code, "no")).exit, Exit::Problem, "{code:?}");
        }
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Unimplemented, Code::Internal, Code::Unknown] {
            assert_eq!(failure("x", Status::new(code, "no")).exit, Exit::Unable, "{code:?}");
        }
    }

    #[test]
    fn the_time_to_wait_is_told() {
        let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_secs(3)));
        let failure = failure("the sidecar", Status::with_error_details(Code::Unavailable, "draining", details));
        assert_eq!(
            (failure.message.as_str(), failure.details.as_slice()),
            ("the sidecar cannot answer now: draining", ["try again in 3 s".to_owned()].as_slice())
        );
    }
}
