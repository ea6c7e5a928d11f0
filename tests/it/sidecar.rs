//! A sidecar as a process starts it: from its arguments to its end.

use std::net::TcpListener;

use yardarm::lifecycle::Shutdown;
use yardarm::sidecar::{self, Args, Listen, Serve, Upstream, Workers};
use yardarm::wire::v1::ErrorCode;
use yardarm::wire::v1::evaluation_client::EvaluationClient;

use crate::pod::{FLAGS, Pod, evaluate, person, question, soon};

/// Nobody answers there.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn args() -> Args {
    let upstream = Upstream {
        control: nowhere(),
        environment: "test".into(),
        data: None,
        pod: Some("checkout-7f9c".into()),
        namespace: "shop".into(),
        node: String::new(),
    };
    Args { upstream, serve: Serve { threads: Some(1), ..Serve::default() } }
}

#[tokio::test]
async fn without_a_control_plane_and_without_a_disk_it_answers_that_it_is_not_ready() {
    let shutdown = Shutdown::new();
    let running = sidecar::start(args(), shutdown.clone()).await.unwrap();
    let mut client = EvaluationClient::connect(format!("http://{}", running.tcp)).await.unwrap();
    let decision = evaluate(&mut client, question("greeting", person("ana"))).await;
    assert_eq!(decision.error_code(), ErrorCode::ProviderNotReady);
    shutdown.request();
    assert_eq!(soon(shutdown.complete()).await, []);
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_in_one_line_with_what_to_do() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let data_plane = Args { serve: Serve { listen: taken, ..args().serve }, ..args() };
    let management = Args { serve: Serve { management: taken, ..args().serve }, ..args() };
    let ofrep = Args { serve: Serve { ofrep: Listen(Some(taken)), ..args().serve }, ..args() };
    let sync = Args { serve: Serve { sync: Listen(Some(taken)), ..args().serve }, ..args() };
    for (args, option) in [(data_plane, "--listen"), (management, "--management"), (ofrep, "--ofrep"), (sync, "--sync")] {
        let error = format!("{:#}", sidecar::start(args, Shutdown::new()).await.unwrap_err());
        assert!(error.contains(&taken.to_string()) && error.contains(option) && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn a_socket_on_which_another_sidecar_answers_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let socket = Some(dir.path().join("pod.sock"));
    let first = Pod::start_with(&Serve { threads: Some(1), socket: socket.clone(), ..Serve::default() }, FLAGS).await;
    let second = Args { serve: Serve { socket, ..args().serve }, ..args() };
    let error = format!("{:#}", sidecar::start(second, Shutdown::new()).await.unwrap_err());
    assert!(error.contains("another process answers") && error.contains("--socket"), "{error}");
    assert_eq!(first.stop().await, []);
}

#[tokio::test]
async fn an_address_of_the_control_plane_that_is_none_is_refused() {
    for wrong in ["", "127.0.0.1:8020", "https://control:8020", "http://"] {
        let upstream = Upstream { control: wrong.into(), ..args().upstream };
        let error = format!("{:#}", sidecar::start(Args { upstream, ..args() }, Shutdown::new()).await.unwrap_err());
        assert!(error.contains("--control") && error.contains("http://HOST:PORT"), "{error}");
    }
}

#[tokio::test]
async fn many_pods_of_one_process_share_their_threads_and_end_alone() {
    let workers = Workers::start(Some(2)).unwrap();
    let first = Pod::start_on(&workers, &Serve::default()).await;
    let mut second = Pod::start_on(&workers, &Serve::default()).await;
    second.apply(FLAGS);
    assert_eq!(first.stop().await, []);
    assert_eq!(evaluate(&mut second.client().await, question("greeting", person("ana"))).await.variant, "short");
}
