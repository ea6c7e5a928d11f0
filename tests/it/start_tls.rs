//! TLS of `yardarm start`: real processes, with certificates that are made here.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint, Uri};
use yardarm::sidecar::{Limits, Serve, Tls};
use yardarm::wire::flagd::sync::flag_sync_service_client::FlagSyncServiceClient;
use yardarm::wire::flagd::sync::{FetchAllFlagsRequest, SyncFlagsRequest};
use yardarm::wire::flagd::v2::ResolveStringRequest;
use yardarm::wire::flagd::v2::service_client::ServiceClient;

use crate::management::metrics;
use crate::pod::{FLAGS, Pod, soon, unix_channel};
use crate::process::{Process, channel, command};
use crate::start::{Logged, SOMEWHERE, flag, get, start, until, uri};

/// A root, and what it signed for the loopback, in files beside a document.
struct Papers(TempDir);

impl Papers {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = root.self_signed(&root_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &root, &root_key).unwrap();
        let papers = Self(dir);
        for (name, text) in [("root.pem", root.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
            fs::write(papers.at(name), text).unwrap();
        }
        fs::write(papers.at("flags.json"), flag("a", "x")).unwrap();
        papers
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn start(&self, more: &[&str]) -> Process {
        let (flags, cert, key) = (uri(&self.at("flags.json")), self.text("cert.pem"), self.text("key.pem"));
        let process = start(&[&["-f", &flags, "-c", &cert, "-k", &key], more].concat());
        until("it is ready", || get(process.management(), "/readyz").0 == 200);
        process
    }

    async fn open(&self, at: &str, speaks: &[u8], versions: &[&'static SupportedProtocolVersion]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.at("root.pem")).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![speaks.to_vec()];
        let stream = TcpStream::connect(at).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn channel(&self, at: &str, version: &'static SupportedProtocolVersion) -> Channel {
        let stream = soon(self.open(at, b"h2", &[version])).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut stream = Some(TokioIo::new(stream));
        let connect = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::other("it is connected once"));
            async move { stream }
        });
        soon(Endpoint::from_static("http://localhost").connect_with_connector(connect)).await.unwrap()
    }
}

fn question() -> ResolveStringRequest {
    ResolveStringRequest { flag_key: "a".to_owned(), context: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_and_sync_are_served_over_tls_and_the_other_ports_in_clear() {
    let papers = Papers::new();
    let process = papers.start(&[]);
    for version in [&TLS12, &TLS13] {
        let mut evaluation = ServiceClient::new(papers.channel(process.tcp(), version).await);
        let said = soon(evaluation.resolve_string(question())).await.unwrap().into_inner();
        assert_eq!(said.value.as_deref(), Some("x"));
        let mut sync = FlagSyncServiceClient::new(papers.channel(process.sync(), version).await);
        let said = soon(sync.fetch_all_flags(FetchAllFlagsRequest::default())).await.unwrap().into_inner();
        assert_eq!(serde_json::from_str::<Json>(&said.flag_configuration).unwrap()["flags"]["a"]["variants"]["v"], "x");
    }
    assert_eq!(get(process.management(), "/healthz").0, 200);
    assert_eq!(get(process.ofrep(), "/").0, 404);
    let measured = |route: &str, scheme: &str| {
        let route = if route.is_empty() { String::new() } else { format!(",http_route=\"{route}\"") };
        let (_, text) = get(process.management(), "/metrics");
        let count =
            |line: &str| line.starts_with("http_server_request_duration_seconds_count{") && line.contains(&route) && line.contains(scheme);
        text.lines().any(count)
    };
    until("what came over TLS has its scheme", || measured("/flagd.evaluation.v2.Service/ResolveString", "url_scheme=\"https\""));
    until("and what came in clear its own", || measured("", "url_scheme=\"http\""));
    assert!(!measured("/flagd.evaluation.v2.Service/ResolveString", "url_scheme=\"http\""));
    assert!(process.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_spoken_by_http_1_over_tls() {
    let papers = Papers::new();
    let process = papers.start(&[]);
    let stream = soon(papers.open(process.tcp(), b"http/1.1", &[&TLS13])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (mut sender, connection) = soon(hyper::client::conn::http1::handshake(TokioIo::new(stream))).await.unwrap();
    tokio::spawn(connection);
    // One connection for all of them.
    for _ in 0..3 {
        let request = Request::post("/flagd.evaluation.v2.Service/ResolveString")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json!({ "flagKey": "a" }).to_string())))
            .unwrap();
        soon(sender.ready()).await.unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(serde_json::from_slice::<Json>(&body).unwrap()["value"], "x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_in_clear_trusts_another_root_or_speaks_another_protocol_is_not_answered() {
    let papers = Papers::new();
    let process = papers.start(&[]);
    for at in [process.tcp(), process.sync()] {
        let refused = soon(ServiceClient::new(channel(at)).resolve_string(question())).await;
        assert!(refused.is_err(), "{refused:?}");
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut said = Vec::new();
        // What was sent and not read may end it with a reset.
        _ = soon(stream.read_to_end(&mut said)).await;
        assert!(!said.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&said));
        let error = soon(Papers::new().open(at, b"h2", &[&TLS13])).await.unwrap_err();
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
        let error = soon(papers.open(at, b"spdy/3", &[&TLS13])).await.unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    }
    // It goes on serving the others.
    let said = soon(ServiceClient::new(papers.channel(process.tcp(), &TLS13).await).resolve_string(question())).await;
    assert!(said.is_ok(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_spoken_to_in_clear() {
    let papers = Papers::new();
    let (socket, sync) = (papers.text("evaluation.sock"), papers.text("sync.sock"));
    let process = papers.start(&["-d", &socket, "-e", &sync]);
    let said = soon(ServiceClient::new(unix_channel(socket.as_ref()).await).resolve_string(question())).await.unwrap();
    assert_eq!(said.into_inner().value.as_deref(), Some("x"));
    let mut client = FlagSyncServiceClient::new(unix_channel(sync.as_ref()).await);
    assert!(soon(client.fetch_all_flags(FetchAllFlagsRequest::default())).await.is_ok());
    assert!(process.stop().success());
}

/// More than the buffers of a connection hold, so that TLS has to wait for TCP in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_many_megabytes_comes_over_tls_as_a_whole() {
    let papers = Papers::new();
    let value = "v".repeat(8_000);
    let one = json!({ "state": "ENABLED", "variants": { "v": value }, "defaultVariant": "v" });
    let flags: serde_json::Map<_, _> = (0..2_000).map(|number| (format!("flag-{number}"), one.clone())).collect();
    fs::write(papers.at("flags.json"), json!({ "flags": flags }).to_string()).unwrap();
    let process = papers.start(&[]);
    let client = FlagSyncServiceClient::new(papers.channel(process.sync(), &TLS13).await);
    let mut stream = soon(client.max_decoding_message_size(64 << 20).sync_flags(SyncFlagsRequest::default())).await.unwrap().into_inner();
    let text = soon(stream.message()).await.unwrap().unwrap().flag_configuration;
    assert!(text.len() > 16_000_000, "{}", text.len());
    assert_eq!(serde_json::from_str::<Json>(&text).unwrap()["flags"].as_object().unwrap().len(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let papers = Papers::new();
    let tls = Tls::read(&papers.at("cert.pem"), &papers.at("key.pem")).unwrap();
    assert_eq!(format!("{tls:?}"), "Tls", "nothing of the key is shown");
    let limits = Limits { first_bytes_ms: 100, ..Limits::default() };
    let pod = Pod::start_with(&Serve { threads: Some(1), tls: Some(tls), limits, ..Serve::default() }, FLAGS).await;
    let mut silent = TcpStream::connect(pod.running.tcp).await.unwrap();
    let mut said = Vec::new();
    assert_eq!(soon(silent.read_to_end(&mut said)).await.unwrap(), 0);
    // One that shakes hands and then says nothing has no more time.
    let mut mute = soon(papers.open(&pod.running.tcp.to_string(), b"h2", &[&TLS13])).await.unwrap();
    _ = soon(mute.read_to_end(&mut said)).await;
    assert!(said.is_empty());
    let mut page = String::new();
    soon(async {
        while !page.contains("yardarm_failed_handshakes_total{reason=\"timeout\"} 1\n") {
            page = metrics(&pod).await;
        }
    })
    .await;
    let others: u64 = ["plaintext", "certificate", "protocol", "closed", "other"].map(|reason| failures(&page, reason)).iter().sum();
    assert_eq!(others, 0, "{page}");
}

/// As `/metrics` counts them.
fn failures(page: &str, reason: &str) -> u64 {
    let begin = format!("yardarm_failed_handshakes_total{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&begin)).unwrap_or_else(|| panic!("{begin} is not in {page}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_fail_are_counted_by_their_reason_and_each_reason_is_logged_once() {
    let (papers, others) = (Papers::new(), Papers::new());
    let (flags, cert, key) = (uri(&papers.at("flags.json")), papers.text("cert.pem"), papers.text("key.pem"));
    let logged = Logged::start(&[&SOMEWHERE[..], &["-f", &flags, "-c", &cert, "-k", &key]].concat(), &[]);
    let management = format!("127.0.0.1:{}", logged.port("metrics and probes listening at "));
    let sync = format!("127.0.0.1:{}", logged.port("starting flag sync service on port "));
    let evaluation = format!("127.0.0.1:{}", logged.port("Flag IResolver listening at 127.0.0.1:"));
    until("it is ready", || get(&management, "/readyz").0 == 200);
    for at in [&evaluation, &sync] {
        for clear in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0\0\0\0\0"] {
            let mut stream = TcpStream::connect(at.as_str()).await.unwrap();
            stream.write_all(clear).await.unwrap();
            // What was sent and not read may end it with a reset.
            _ = soon(stream.read_to_end(&mut Vec::new())).await;
        }
        for version in [&TLS12, &TLS13] {
            soon(others.open(at, b"h2", &[version])).await.unwrap_err();
            soon(papers.open(at, b"spdy/3", &[version])).await.unwrap_err();
        }
        // One leaves in the middle, and one, as a probe of the port, at once.
        for begun in [&[0x16, 3, 1][..], &[]] {
            let mut stream = TcpStream::connect(at.as_str()).await.unwrap();
            stream.write_all(begun).await.unwrap();
            stream.shutdown().await.unwrap();
            _ = soon(stream.read_to_end(&mut Vec::new())).await;
        }
        assert!(soon(papers.open(at, b"h2", &[&TLS13])).await.is_ok());
    }
    let expected = [("plaintext", 6), ("certificate", 4), ("protocol", 4), ("closed", 4), ("timeout", 0), ("other", 0)];
    let counted = || {
        let (_, page) = get(&management, "/metrics");
        expected.map(|(reason, _)| (reason, failures(&page, reason)))
    };
    until("all are counted", || counted().iter().map(|(_, count)| count).sum::<u64>() >= 18);
    assert_eq!(counted(), expected);
    let lines = logged.end();
    for (reason, told) in [("plaintext", 1), ("certificate", 1), ("protocol", 1), ("closed", 0), ("timeout", 0), ("other", 0)] {
        let of_reason: Vec<_> = lines.iter().filter(|line| line.contains(&format!("reason=\"{reason}\""))).collect();
        assert_eq!(of_reason.len(), told, "{reason}: {lines:#?}");
        assert!(
            of_reason.iter().all(|line| line.contains("WARN") && line.contains("peer=127.0.0.1:") && line.ends_with("failures=1")),
            "{of_reason:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_no_handshake_is_counted() {
    let papers = Papers::new();
    let process = start(&["-f", &uri(&papers.at("flags.json"))]);
    assert!(!get(process.management(), "/metrics").1.contains("handshakes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_files_may_stand_in_the_configuration() {
    let papers = Papers::new();
    let config = json!({
        "server-cert-path": papers.text("cert.pem"),
        "server-key-path": papers.text("key.pem"),
        "sources": [{ "uri": papers.text("flags.json"), "provider": "file" }],
    });
    fs::write(papers.at("config.json"), config.to_string()).unwrap();
    let process = start(&["--config", &papers.text("config.json")]);
    assert!(soon(papers.open(process.tcp(), b"h2", &[&TLS13])).await.is_ok());
}

/// A web server over TLS that has one document.
async fn serve_web(papers: &Papers) -> String {
    let (cert, key) = (CertificateDer::from_pem_file(papers.at("cert.pem")), PrivateKeyDer::from_pem_file(papers.at("key.pem")));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.unwrap()], key.unwrap()).unwrap();
    let (acceptor, body) = (TlsAcceptor::from(Arc::new(config)), flag("a", "by-web"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // One that does not trust the certificate goes here.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let body = body.clone();
            let answer = hyper::service::service_fn(move |_| {
                let answer = http::Response::new(Full::new(Bytes::from(body.clone())));
                async { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    format!("https://{at}/flags.json")
}

async fn served(process: &Process) -> String {
    until("it is ready", || get(process.management(), "/readyz").0 == 200);
    soon(ServiceClient::new(channel(process.tcp())).resolve_string(question())).await.unwrap().into_inner().value.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_come_over_tls_from_a_sync_service_and_a_web_server_that_a_file_vouches_for() {
    let papers = Papers::new();
    let (upstream, web) = (papers.start(&[]), serve_web(&papers).await);
    let root = papers.text("root.pem");
    for (source, value) in [
        (json!({ "uri": upstream.sync(), "provider": "grpc", "tls": true, "certPath": root }), "x"),
        (json!({ "uri": format!("grpcs://{}", upstream.sync()), "provider": "grpc", "certPath": root }), "x"),
        (json!({ "uri": web, "provider": "http", "certPath": root }), "by-web"),
    ] {
        assert_eq!(served(&start(&["-s", &json!([source]).to_string()])).await, value, "{source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_the_roots_of_the_system_count_and_nobody_else_is_believed() {
    let (papers, others) = (Papers::new(), Papers::new());
    let (upstream, web) = (papers.start(&[]), serve_web(&papers).await);
    let (ours, theirs, none) = (papers.text("root.pem"), others.text("root.pem"), papers.text("none.pem"));
    let grpc = format!("grpcs://{}", upstream.sync());
    for uri in [&grpc, &web] {
        let process = Logged::start(&[&SOMEWHERE[..], &["-f", uri]].concat(), &[("SSL_CERT_FILE", &ours)]);
        process.line("flags of the source are served");
        let process = Logged::start(&[&SOMEWHERE[..], &["-f", uri]].concat(), &[("SSL_CERT_FILE", &theirs)]);
        process.line("invalid peer certificate");
        let provider = if *uri == grpc { "grpc" } else { "http" };
        let source = json!([{ "uri": uri, "provider": provider, "certPath": none }]).to_string();
        let process = Logged::start(&[&SOMEWHERE[..], &["-s", &source]].concat(), &[]);
        assert!(process.line("cannot read `certPath`").contains(&none));
    }
    // In clear where TLS is expected, and the other way round.
    let plain = start(&["-f", &uri(&papers.at("flags.json"))]);
    let secret = Logged::start(&[&SOMEWHERE[..], &["-f", &format!("grpcs://{}", plain.sync())]].concat(), &[("SSL_CERT_FILE", &ours)]);
    secret.line("the source cannot be read");
    let open = Logged::start(&[&SOMEWHERE[..], &["-f", &format!("grpc://{}", upstream.sync())]].concat(), &[]);
    open.line("the source cannot be read");
}

#[test]
fn files_that_are_wrong_end_the_start_with_one_line_that_names_them() {
    let (papers, others) = (Papers::new(), Papers::new());
    let (cert, key, none) = (papers.text("cert.pem"), papers.text("key.pem"), papers.text("none.pem"));
    let (broken, empty, other) = (papers.text("broken.pem"), papers.text("empty.pem"), others.text("key.pem"));
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    fs::write(&empty, "").unwrap();
    for (args, variables, named) in [
        (vec!["-c", &cert], vec![], ["--server-cert-path is", &cert, "--server-key-path is not given"]),
        (vec!["-k", &key], vec![], ["--server-key-path is", &key, "--server-cert-path is not given"]),
        (vec![], vec![("FLAGD_SERVER_CERT_PATH", &cert)], ["--server-cert-path is", &cert, "--server-key-path is not given"]),
        (vec!["-c", &none, "-k", &key], vec![], ["cannot read --server-cert-path", &none, "No such file"]),
        (vec!["-c", &cert, "-k", &none], vec![], ["cannot read --server-key-path", &none, "No such file"]),
        (vec!["-c", &broken, "-k", &key], vec![], ["--server-cert-path", &broken, "is no certificate in PEM"]),
        (vec!["-c", &empty, "-k", &key], vec![], ["--server-cert-path", &empty, "holds none"]),
        (vec!["-c", &key, "-k", &key], vec![], ["--server-cert-path", &key, "is no certificate in PEM"]),
        (vec!["-c", &cert, "-k", &cert], vec![], ["--server-key-path", &cert, "is no private key in PEM"]),
        (vec!["-c", &cert, "-k", &other], vec![], ["--server-key-path", &other, "does not fit --server-cert-path"]),
    ] {
        let output = command().arg("start").args(SOMEWHERE).args(&args).envs(variables).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(named.iter().all(|part| said.contains(part)), "{args:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(!said.contains("PRIVATE"), "{said}");
    }
}
