//! What `Cargo.lock` may hold: licences, origins, crates that stay out and why, and those that must not be there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use semver::Version;
use serde_json::Value;

/// Each is compatible with Apache-2.0 and asks for no more than a notice.
const LICENCES: &[&str] =
    &["Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Zlib", "BSL-1.0", "0BSD", "CC0-1.0", "Unlicense"];

/// Crate, why it stays out.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "one cryptography library, and that is aws-lc-rs"),
    ("ring", "one cryptography library, and that is aws-lc-rs"),
    ("rsa", "RUSTSEC-2023-0071, without a fixed version"),
    ("serde_yaml", "deprecated; serde_yaml_ng"),
    ("serde_yml", "RUSTSEC-2025-0068; serde_yaml_ng"),
    ("async-std", "one runtime"),
];

/// Twice in the executable they would be two worlds that do not fit together.
const ONCE: &[&str] = &["tonic", "prost", "hyper", "h2", "http", "tower", "axum", "tokio", "opentelemetry", "tracing-core"];

struct Package {
    name: String,
    version: Version,
    licence: String,
    source: Option<String>,
    /// The lock also names what a crate would only add to a crate that nobody asks for (`ring?/std`); it is never compiled.
    is_compiled: bool,
}

#[test]
fn every_dependency_may_be_here() {
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages were read", packages.len());
    let broken = breaches(&packages);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn a_dependency_that_may_not_be_here_is_found() {
    let package = |name: &str, version: &str, licence: &str, source: &str| Package {
        name: name.to_owned(),
        version: version.parse().unwrap(),
        licence: licence.to_owned(),
        source: Some(source.to_owned()),
        is_compiled: true,
    };
    let registry = "registry+https://example.org/index";
    for (planted, expected) in [
        (vec![package("a", "1.0.0", "GPL-3.0-only", registry)], "GPL-3.0-only"),
        (vec![package("a", "1.0.0", "MIT AND LGPL-3.0", registry)], "MIT AND LGPL-3.0"),
        (vec![package("a", "1.0.0", "(MIT OR ISC) AND GPL-3.0", registry)], "AND GPL-3.0"),
        (vec![package("a", "1.0.0", "", registry)], "licence"),
        (vec![package("a", "1.0.0", "MIT", "git+https://example.org/a")], "git+"),
        (vec![package("ring", "1.0.0", "MIT", registry)], "aws-lc-rs"),
        (vec![package("h2", "0.4.15", "MIT", registry)], "0.4.16"),
        (vec![package("hyper", "1.0.0", "MIT", registry), package("hyper", "0.14.0", "MIT", registry)], "0.14.0 and 1.0.0"),
    ] {
        let broken = breaches(&planted);
        assert!(broken.len() == 1 && broken[0].contains(expected), "{expected}: {broken:#?}");
    }
    let fine = [package("a", "1.0.0", "GPL-2.0-only OR (MIT AND ISC)", registry), package("h2", "0.4.16", "MIT/Apache-2.0", registry)];
    assert!(breaches(&fine).is_empty());
    let fine = [Package { is_compiled: false, ..package("ring", "1.0.0", "MIT", registry) }];
    assert!(breaches(&fine).is_empty());
}

fn breaches(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    for Package { name, version, licence, source, is_compiled } in packages {
        versions.entry(name).or_default().push(version);
        if !is_allowed(licence) {
            broken.push(format!("{name} {version}: licence {licence:?} is not among {}", LICENCES.join(", ")));
        }
        if source.as_ref().is_some_and(|source| !source.starts_with("registry+")) {
            broken.push(format!("{name} {version}: comes from {source:?}, not from the registry"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| banned == name && *is_compiled) {
            broken.push(format!("{name} {version}: stays out: {why}"));
        }
        if name == "h2" && *version < Version::new(0, 4, 16) {
            broken.push(format!("{name} {version}: RUSTSEC-2026-0258 is mended in 0.4.16"));
        }
    }
    for (name, mut found) in versions.into_iter().filter(|(name, found)| ONCE.contains(name) && found.len() > 1) {
        found.sort();
        broken.push(format!(
            "{name} is there in {} versions: {}",
            found.len(),
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        ));
    }
    broken
}

/// An SPDX expression; `/` is how old crates write OR.
fn is_allowed(licence: &str) -> bool {
    let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let allowed = alternatives(&mut words);
    allowed && words.next().is_none()
}

type Words<'w> = std::iter::Peekable<std::str::SplitWhitespace<'w>>;

fn alternatives(words: &mut Words<'_>) -> bool {
    let mut allowed = combination(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= combination(words);
    }
    allowed
}

fn combination(words: &mut Words<'_>) -> bool {
    let mut allowed = licence(words);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= licence(words);
    }
    allowed
}

fn licence(words: &mut Words<'_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let allowed = alternatives(words);
        return words.next() == Some(")") && allowed;
    }
    let allowed = words.next().is_some_and(|name| LICENCES.contains(&name));
    if words.next_if_eq(&"WITH").is_some() {
        // An exception only ever permits more.
        words.next();
    }
    allowed
}

/// Name and version of what is compiled on Linux, tests and build scripts included.
fn compiled() -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--target", "x86_64-unknown-linux-gnu", "--edges", "normal,build,dev"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| line.split_once(" v").map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap().to_owned()));
    let compiled: BTreeSet<_> = String::from_utf8(output.stdout).unwrap().lines().filter_map(line).collect();
    assert!(compiled.len() > 100, "only {} packages were read", compiled.len());
    compiled
}

/// What the lock holds for Linux, tests and build scripts included.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let compiled = compiled();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]).parse().unwrap(),
            licence: text(&package["license"]),
            source: package["source"].as_str().map(str::to_owned),
            is_compiled: compiled.contains(&(text(&package["name"]), text(&package["version"]))),
        })
        .collect()
}
