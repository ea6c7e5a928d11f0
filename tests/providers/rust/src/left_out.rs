//! Which scenarios of a mode are not run with this provider, and why. Each reason but that of TLS holds against flagd itself too.

use cucumber::gherkin::Scenario;

use crate::suite::Mode;

/// The provider's engine refuses a whole document for one reference to nothing, so its document is without it.
pub const fn flag(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Rpc => None,
        Mode::InProcess => Some("ref-to-nonexistent-evaluator-flag"),
    }
}

/// What a scenario can have that the provider, or the SDK under it, has not.
pub fn reason(mode: Mode, feature: &str, tags: &[&str], scenario: &Scenario) -> Option<&'static str> {
    let tagged = |tag| tags.contains(&tag);
    let says = |part: &str| scenario.steps.iter().any(|step| step.value.contains(part));
    if tagged("fractional-v1") || tagged("fractional-v2") {
        Some("buckets of former versions of `fractional`")
    } else if tagged("deprecated") {
        Some("deprecated in the testbed")
    } else if feature == "Configuration Test" || says("a config was initialized") {
        Some("asks the client for its options; no server takes part")
    } else if tagged("customCert") && std::env::var("WITHOUT").is_ok_and(|without| without == "tls") {
        Some("the binary leaves TLS to a proxy")
    } else if says("event handler") || says("event was fired") {
        Some("the Rust SDK has no events of providers")
    } else {
        match mode {
            Mode::Rpc => by_rpc(tags, &says),
            Mode::InProcess => in_process(tags, &says),
        }
    }
}

fn by_rpc(tags: &[&str], says: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    if says("an option \"selector\"") {
        Some("it sends no selector")
    } else if is_disabled_and_not_zero(says) || is_without_a_value(tags, says) {
        Some("it speaks v1 of the protocol, which has no answer without a value")
    } else if says("with type \"Object\"") || says("a nested property") {
        Some("it sends an object of the context as text for debugging")
    } else if says("the error-code should be \"PARSE_ERROR\"") {
        Some("it takes DATA_LOSS for a general error")
    } else {
        None
    }
}

/// Where the code's default is the zero of its type, the two cannot be told apart.
fn is_disabled_and_not_zero(says: &dyn Fn(&str) -> bool) -> bool {
    says("the reason should be \"DISABLED\"") && !says("should be \"false\"") && !says("should be \"{}\"")
}

/// A flag that has no default, and no variant for this context.
fn is_without_a_value(tags: &[&str], says: &dyn Fn(&str) -> bool) -> bool {
    tags.contains(&"no-default-variant") && says("the reason should be \"DEFAULT\"")
}

fn in_process(tags: &[&str], says: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    if flag(Mode::InProcess).is_some_and(says) {
        Some("it refuses a whole document for one reference to nothing")
    } else if says("the reason should be \"DISABLED\"") {
        Some("it does not find a disabled flag")
    } else if is_without_a_value(tags, says) {
        Some("it takes a flag without a default for one whose default is missing")
    } else if tags.contains(&"semver-edge-cases") && says("should be \"match\"") {
        Some("its engine reads only full versions")
    } else if tags.contains(&"operator-errors") && tags.contains(&"string") {
        Some("its engine takes a comparison of no strings for false")
    } else {
        None
    }
}
