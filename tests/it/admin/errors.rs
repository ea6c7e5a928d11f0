//! What a client in any language is told: code, reason, details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use yardarm::wire::v1::*;

use super::*;

fn details(status: &Status) -> ErrorDetails {
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.domain.as_str()), Some("yardarm"), "{status:?}");
    details
}

fn reason(status: &Status) -> String {
    details(status).error_info().unwrap().reason.clone()
}

#[tokio::test]
async fn every_problem_of_a_document_is_a_field_violation() {
    let control = Control::start().await;
    let document = "flags: { a: { variants: { on: true }, defaultVariant: onn }, b: { variants: { on: true }, defaultVariant: of } }";
    let refused = control.admin().apply(apply(document)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID"));
    let violations = details(&refused).bad_request().unwrap().field_violations.clone();
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["flags.a.defaultVariant", "flags.b.defaultVariant"]);
    assert!(violations[0].description.contains("did you mean \"on\"?"), "{}", violations[0].description);
}

#[tokio::test]
async fn a_document_with_a_thousand_problems_is_still_answered() {
    let control = Control::start().await;
    let flags: Vec<_> = (0..1_000).map(|n| format!("f{n}: {{ variants: {{ on: true }}, defaultVariant: wrong }}")).collect();
    let refused = control.admin().apply(apply(&format!("flags: {{ {} }}", flags.join(", ")))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let violations = details(&refused).bad_request().unwrap().field_violations.clone();
    assert!(violations.len() > 10);
    assert!(violations.last().unwrap().description.starts_with(&format!("and {} more", 1_000 - (violations.len() - 1))));
}

#[tokio::test]
async fn a_conflict_is_aborted_and_says_what_changed() {
    let control = Control::start().await;
    let mut admin = control.admin();
    admin.apply(apply(DOCUMENT)).await.unwrap();
    admin.apply(apply("flags: { search: { variants: { on: true, off: false }, defaultVariant: off } }")).await.unwrap();
    let late = Some(Intent { expect_revision: Some(2), ..intent().unwrap() });
    let request = DeleteFlagRequest { environment: environment(), key: "search".into(), intent: late, kind: 0 };
    let refused = admin.delete_flag(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "CONFLICT"));
    let violation = details(&refused).precondition_failure().unwrap().violations[0].clone();
    assert_eq!(violation.subject, "flag search");
    assert!(violation.description.contains("by ana at revision 3"), "{}", violation.description);
}

#[tokio::test]
async fn each_refusal_has_its_code_and_its_reason() {
    let control = Control::start().await;
    let mut admin = control.admin();
    admin.apply(apply(DOCUMENT)).await.unwrap();
    let key = |key: &str| key.to_owned();
    let delete = |kind: i32, name: &str| DeleteFlagRequest { environment: environment(), key: name.into(), intent: intent(), kind };
    let restore = |percent| RestoreFlagRequest { environment: environment(), key: key("search"), percent, intent: intent() };
    let get = |name: &str, revision| GetFlagRequest { environment: environment(), key: name.into(), revision };
    let refusals = [
        (admin.kill_flag(kill("serch")).await.unwrap_err(), Code::NotFound, "FLAG_NOT_FOUND"),
        (admin.get_flag(get("serch", 0)).await.unwrap_err(), Code::NotFound, "FLAG_NOT_FOUND"),
        (admin.get_flag(get("search", 99)).await.unwrap_err(), Code::NotFound, "REVISION_NOT_FOUND"),
        (admin.delete_flag(delete(2, "bet")).await.unwrap_err(), Code::NotFound, "SEGMENT_NOT_FOUND"),
        (admin.delete_flag(delete(0, "checkout")).await.unwrap_err(), Code::FailedPrecondition, "IN_USE"),
        (admin.delete_flag(delete(2, "beta")).await.unwrap_err(), Code::FailedPrecondition, "IN_USE"),
        (admin.delete_flag(delete(9, "beta")).await.unwrap_err(), Code::InvalidArgument, "MALFORMED"),
        (admin.restore_flag(restore(Some(5.0))).await.unwrap_err(), Code::InvalidArgument, "INVALID"),
        (
            admin.kill_flag(KillFlagRequest { environment: key("defualt"), ..kill("search") }).await.unwrap_err(),
            Code::NotFound,
            "ENVIRONMENT_NOT_FOUND",
        ),
        (
            admin.create_environment(CreateEnvironmentRequest { name: environment(), intent: intent() }).await.unwrap_err(),
            Code::AlreadyExists,
            "ENVIRONMENT_EXISTS",
        ),
        (admin.kill_flag(KillFlagRequest { intent: None, ..kill("search") }).await.unwrap_err(), Code::InvalidArgument, "MALFORMED"),
        (admin.apply(ApplyRequest { document: vec![0xff], ..apply("") }).await.unwrap_err(), Code::InvalidArgument, "MALFORMED"),
    ];
    for (refused, code, expected) in &refusals {
        assert_eq!((refused.code(), reason(refused).as_str()), (*code, *expected), "{refused:?}");
    }
    let nearest = &details(&refusals[0].0).error_info().unwrap().metadata["nearest"].clone();
    assert_eq!(nearest, "search");
    assert!(refusals[4].0.message().contains("flag cart"), "{}", refusals[4].0.message());
}
