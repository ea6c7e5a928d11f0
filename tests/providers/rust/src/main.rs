//! Runs the scenarios of flagd's testbed with the released Rust provider in one mode:
//! `provider-suite rpc|in-process BINARY TESTBED FEATURES`, where FEATURES are more scenarios, of ours.

mod answer;
mod launchpad;
mod left_out;
mod steps;
mod suite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use cucumber::gherkin::{Feature, Scenario};
use cucumber::{World, WriterExt, writer};
use suite::{MODE, Mode, Suite};

/// By reason, how many.
type LeftOut = Arc<Mutex<BTreeMap<&'static str, usize>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, binary, testbed, features] = arguments.as_slice() else {
        eprintln!("usage: provider-suite rpc|in-process BINARY TESTBED FEATURES");
        return ExitCode::FAILURE;
    };
    let mode = match mode.as_str() {
        "rpc" => Mode::Rpc,
        "in-process" => Mode::InProcess,
        mode => panic!("there is no mode {mode}"),
    };
    MODE.set(mode).expect("it is set once");
    let child = launchpad::start(binary, Path::new(testbed), left_out::flag(mode));
    let scenarios = readable(&[Path::new(testbed).join("gherkin"), PathBuf::from(features)]);
    let left_out = LeftOut::default();
    let counted = Arc::clone(&left_out);
    let done = Suite::cucumber::<PathBuf>()
        .max_concurrent_scenarios(1)
        .with_writer(writer::Basic::new(std::io::stdout(), writer::Coloring::Never, writer::Verbosity::Default).normalized().summarized())
        .fail_on_skipped()
        .with_default_cli()
        .filter_run(scenarios.clone(), move |feature, _, scenario| chosen(mode, feature, scenario, &counted))
        .await;
    launchpad::end(child);
    std::fs::remove_dir_all(scenarios).expect("our own directory can be removed");

    let left_out = left_out.lock().expect("nobody panicked with it");
    for (reason, count) in left_out.iter() {
        println!("not run: {count}: {reason}");
    }
    let stats = done.scenarios_stats();
    let (failed, skipped) = (stats.failed + stats.skipped, left_out.values().sum::<usize>());
    println!("rust-{} passed={} failed={failed} skipped={skipped}", mode.tag(), stats.passed);
    if failed == 0 && stats.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(mode: Mode, feature: &Feature, scenario: &Scenario, left_out: &LeftOut) -> bool {
    let tags: Vec<&str> = feature.tags.iter().chain(&scenario.tags).map(|tag| tag.trim_start_matches('@')).collect();
    if !tags.contains(&mode.tag()) {
        return false;
    }
    let Some(reason) = left_out::reason(mode, &feature.name, &tags, scenario) else { return true };
    *left_out.lock().expect("nobody panicked with it").entry(reason).or_default() += 1;
    false
}

/// A directory with the feature files, in which a backslash in a table stands for itself unless it escapes what Gherkin says: the parser
/// takes `\u` for a mistake, where others read the two signs.
fn readable(directories: &[PathBuf]) -> PathBuf {
    let readable = std::env::temp_dir().join(format!("provider-suite-{}", std::process::id()));
    std::fs::create_dir(&readable).expect("the temporary directory can be written");
    for directory in directories {
        for entry in std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("the directory can be read").path();
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.file_name().expect("a file of a directory has a name");
            std::fs::write(readable.join(name), text.replace(r"\u", r"\\u")).expect("the temporary directory can be written");
        }
    }
    readable
}
