//! What cannot be done is said in one line that names it and what to do, with exit code 2.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde_json::Value as Json;

use super::{Dev, Scratch, run};

fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn dev_names_the_port_that_is_taken_and_the_option_that_moves_it() {
    for option in ["--control-port", "--webhooks-port", "--sidecar-port", "--management-port", "--ofrep-port", "--sync-port"] {
        let (scratch, (_listener, address)) = (Scratch::new(), taken());
        let port = address.port().to_string();
        let line = run(&["dev", "--data", &scratch.path("data"), "--port-base", "0", option, &port]).refusal(2);
        assert!(line.contains(&format!("port {port} ")) && line.contains("is taken") && line.contains(option), "{line}");
    }
}

#[test]
fn dev_names_both_parts_that_would_listen_on_one_port() {
    // One that is free: nobody else is in the way.
    let (listener, address) = taken();
    drop(listener);
    let (port, next) = (address.port().to_string(), (address.port() - 10).to_string());
    let cases: [(&[&str], [&str; 2]); 3] = [
        (&["--control-port", &port, "--sidecar-port", &port], ["the control plane (--control-port)", "pod 1 (--sidecar-port)"]),
        (&["--sidecar-port", &port, "--management-port", &port], ["pod 1 (--sidecar-port)", "of pod 1 (--management-port)"]),
        (&["--pods", "2", "--sidecar-port", &next, "--management-port", &port], ["of pod 1 (--management-port)", "pod 2 (--sidecar-port)"]),
    ];
    for (options, parts) in cases {
        let scratch = Scratch::new();
        let data = scratch.path("data");
        let line = run(&[&["dev", "--data", &data, "--port-base", "0"], options].concat()).refusal(2);
        assert!(line.contains(&format!("port {port} ")) && parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[test]
fn a_role_names_the_address_that_is_taken_and_the_option_that_moves_it() {
    let (scratch, (_listener, address)) = (Scratch::new(), taken());
    let (data, address) = (scratch.path("data"), address.to_string());
    let port = address.split(':').nth(1).unwrap();
    let control = run(&["control", "--data", &data, "--listen", &address]).refusal(2);
    let sidecar = run(&["sidecar", "--listen", &address, "--management", "127.0.0.1:0"]).refusal(2);
    let other = |option| {
        let free = ["sidecar", "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--ofrep", "", "--sync", ""];
        let at = free.iter().position(|named| *named == option).unwrap() + 1;
        run(&[&free[..at], &[&address], &free[at + 1..]].concat()).refusal(2)
    };
    let (management, ofrep, sync) = (other("--management"), other("--ofrep"), other("--sync"));
    for (line, option) in [(control, "--listen"), (sidecar, "--listen"), (management, "--management"), (ofrep, "--ofrep"), (sync, "--sync")]
    {
        assert!(line.contains(port) && line.contains(option), "{line}");
    }
}

#[test]
fn a_data_directory_that_another_process_holds_is_named() {
    let dev = Dev::start();
    let data = dev.data().to_str().unwrap();
    for args in [&["dev", "--port-base", "0", "--data", data][..], &["control", "--listen", "127.0.0.1:0", "--data", data]] {
        let line = run(args).refusal(2);
        assert!(line.contains(data) && line.contains("locked by another process"), "{line}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "");
    let below = format!("{file}/data");
    for data in [&file, &below] {
        let line = run(&["dev", "--port-base", "0", "--data", data]).refusal(2);
        assert!(line.contains(&format!("data directory {data}:")) && line.contains("--data"), "{line}");
    }
    // The store of another user is in the unit tests of the store: root, who may run these, is kept from nothing.
    let occupied = scratch.path("occupied");
    std::fs::create_dir_all(Path::new(&occupied).join("store.redb")).unwrap();
    for data in [&file, &below, &occupied] {
        let line = run(&["control", "--listen", "127.0.0.1:0", "--data", data]).refusal(2);
        assert!(line.contains(data.as_str()) && line.contains("--data"), "{line}");
    }
}

#[test]
fn a_store_that_is_no_store_is_named_and_left_alone() {
    let scratch = Scratch::new();
    let data = scratch.path("data");
    std::fs::create_dir(&data).unwrap();
    let store = Path::new(&data).join("store.redb");
    let content = b"not what was written there".repeat(1000);
    std::fs::write(&store, &content).unwrap();
    for args in [&["dev", "--port-base", "0", "--data", &data][..], &["control", "--listen", "127.0.0.1:0", "--data", &data]] {
        let line = run(args).refusal(2);
        assert!(line.contains("store.redb"), "{line}");
    }
    assert_eq!(std::fs::read(store).unwrap(), content);
}

#[test]
fn a_bad_flag_file_stops_dev_before_anything_is_made() {
    let scratch = Scratch::new();
    let (data, missing) = (scratch.path("data"), scratch.path("missing.yaml"));
    let bad = scratch.write("bad.yaml", "flags:\n  a:\n    variants: { on: true }\n    defaultVariant: onn\n");
    for (file, expected) in [(&bad, format!("{bad}:4: flags.a.defaultVariant")), (&missing, format!("{missing}: no such file"))] {
        let line = run(&["dev", "--port-base", "0", "--data", &data, "--flags", file]).refusal(2);
        assert!(line.contains(&expected), "{line}");
    }
    assert!(!Path::new(&data).exists());
}

#[test]
fn nobody_at_the_other_end_is_said_with_the_address_and_the_option() {
    let (listener, address) = taken();
    drop(listener);
    let url = format!("http://{address}");
    for args in [
        &["flag", "list"][..],
        &["kill", "a", "--reason", "b"],
        &["pods"],
        &["audit", "--verify"],
        &["env", "list"],
        &["restore-backup", "/dev/null", "--yes"],
    ] {
        let line = run(&[args, &["--control-plane", &url]].concat()).refusal(2);
        assert!(line.contains(&url) && line.contains("connection refused") && line.contains("--control-plane"), "{line}");
    }
    for args in [&["eval", "a"][..], &["watch"]] {
        let line = run(&[args, &["--sidecar", &url]].concat()).refusal(2);
        assert!(line.contains(&url) && line.contains("connection refused") && line.contains("--sidecar"), "{line}");
    }
}

#[test]
fn with_json_output_an_error_is_json_too() {
    let ran = run(&["pods", "--control-plane", "http://127.0.0.1:1", "--output", "json"]);
    let error: Json = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((ran.code, error["exit"].as_i64(), ran.stdout.as_str()), (2, Some(2), ""));
    assert!(error["error"].as_str().unwrap().contains("http://127.0.0.1:1"), "{error}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_expected() {
    for (args, expected) in [
        (&["kill", "a"][..], "--reason"),
        (&["kill", "a", "--reason", "b", "--wait", "5"], "500ms"),
        (&["kill", "a", "--reason", "b", "--wait", "20m"], "10m"),
        (&["restore", "a", "--reason", "b", "--percent", "101"], "0 to 100"),
        (&["eval", "a", "--attr", "plan"], "plan=beta"),
        (&["eval", "a", "--attr", "n=1", "--attr", "n=2"], "twice"),
        (&["pods", "--control-plane", "https://127.0.0.1:1"], "TLS"),
        (&["pods", "--control-plane", "not an address"], "unix:/PATH"),
        (&["dev", "--pods", "0"], "1..=100"),
        (&["watch", "--changes", "0"], "0 is not in 1.."),
        (&["bench", "evaluate", "--asked", "0"], "0 is not in 1.."),
        (&["bench", "evaluate", "--flags", "0"], "0 is not in 1.."),
        (&["bench", "evaluate", "--rounds", "0"], "0 is not in 1.."),
        (&["bench", "evaluate", "--milliseconds", "0"], "0 is not in 1.."),
        (&["bench", "propagate", "--watchers", "100,0"], "0 is not in 1.."),
        (&["bench", "restart", "--flags", "0"], "0 is not in 1.."),
        (&["bench", "restart", "--rounds", "0"], "0 is not in 1.."),
        (&["bench", "memory", "--watchers", "0"], "0 is not in 1.."),
        (&["bench", "gates", "--runs", "99"], "expected 100 or more"),
        // What it would measure is not what it would say.
        (&["bench", "evaluate", "--asked", "10"], "--flags and --asked 50 or more"),
        (&["bench", "evaluate", "--flags", "49", "--method", "batch"], "--flags and --asked 50 or more"),
        (&["nonsense"], "unrecognized subcommand"),
    ] {
        let ran = run(args);
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_ready_file_that_cannot_be_written_is_named() {
    let scratch = Scratch::new();
    let line = run(&["dev", "--port-base", "0", "--data", &scratch.path("data"), "--ready-file", "/nonexistent/ready"]).refusal(2);
    assert!(line.contains("/nonexistent/ready"), "{line}");
}

#[test]
fn a_probe_that_finds_nobody_is_unhealthy_and_not_wrong_usage() {
    // Docker keeps exit code 2 for itself.
    for args in [&["healthcheck", "--management", "127.0.0.1:1"][..], &["healthcheck", "--grpc", "http://127.0.0.1:1"]] {
        let line = run(args).refusal(1);
        assert!(line.contains("not healthy") && line.contains("connection refused"), "{line}");
    }
}
