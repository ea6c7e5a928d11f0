//! `yardarm dev`: control plane, sidecars and sample flags in one process, to try everything on one machine.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};
use owo_colors::OwoColorize as _;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::{Author, open};
use super::documents::Documents;
use super::exit::{Failure, Outcome, innermost};
use super::later;
use super::output::{Out, count};
use super::ready::{self, Addresses};
use super::roles::{end, free, host, unstartable};
use crate::control::hooks::Listen;
use crate::control::ledger::{Actor, Command};
use crate::control::{self, DEFAULT_ENVIRONMENT, Ledger};
use crate::flag::SAMPLES;
use crate::lifecycle::Shutdown;
use crate::sidecar;
use crate::telemetry::{self, decisions};

/// Ports of further pods lie this far apart.
const STRIDE: u16 = 10;
/// Longer paths do not fit into the address of a Unix socket (108 bytes on Linux, 104 on macOS).
const LONGEST_SOCKET: usize = 100;
/// The revision of an environment that was created and never changed.
const CREATED: u64 = 1;
/// How long the first lines wait for the sidecars to hold the flags.
const WARM_UP: Duration = Duration::from_millis(700);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the store and of what the sidecars keep; created when it is absent
    #[arg(long, env = "YARDARM_DATA", value_name = "DIR", default_value = ".yardarm")]
    data: PathBuf,
    /// Sidecars to run, each as a pod of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pods: u16,
    /// Apply this flag document at every start, instead of the sample flags at the first
    #[arg(long, value_name = "FILE")]
    flags: Option<PathBuf>,
    /// The environment that the sidecars serve
    #[arg(short = 'e', long = "env", visible_alias = "environment", env = "YARDARM_ENVIRONMENT", value_name = "NAME", default_value = DEFAULT_ENVIRONMENT)]
    environment: String,
    #[command(flatten)]
    author: Author,
    #[command(flatten)]
    ready: ready::Args,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    telemetry: telemetry::Args,
}

/// Declares the arguments. `dev` shares its terminal with whoever tries things there, so it logs what is wrong and not what is well; that
/// its sidecars lose their control plane when all of them end together is not wrong.
pub fn declare(command: clap::Command) -> clap::Command {
    later::declare::<Args>(command).mut_arg("log_level", |level| level.default_value("warn,yardarm::replica::follow=error"))
}

/// All on 127.0.0.1.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Ports")]
struct Ports {
    /// The usual ports are this plus 20, 21, 13, 14 and 16; with 0 the system picks free ones
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port_base: u16,
    /// Of the control plane [default: 8020]
    #[arg(long, value_name = "PORT")]
    control_port: Option<u16>,
    /// Of the control plane's webhooks [default: 8021]
    #[arg(long, value_name = "PORT")]
    webhooks_port: Option<u16>,
    /// Of the first sidecar; each further pod adds 10 [default: 8013]
    #[arg(long, value_name = "PORT")]
    sidecar_port: Option<u16>,
    /// Of the first sidecar's management endpoints; each further pod adds 10 [default: 8014]
    #[arg(long, value_name = "PORT")]
    management_port: Option<u16>,
    /// Of the first sidecar's OFREP; each further pod adds 10 [default: 8016]
    #[arg(long, value_name = "PORT")]
    ofrep_port: Option<u16>,
    /// Of the first sidecar's documents for in-process clients; each further pod adds 10 [default: 8015]
    #[arg(long, value_name = "PORT")]
    sync_port: Option<u16>,
}

/// Where one sidecar is to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PodPlace {
    serve: SocketAddr,
    management: SocketAddr,
    ofrep: SocketAddr,
    sync: SocketAddr,
}

/// The ports that the parts of this process are to have, each with the part and the option that chose it.
#[derive(Default)]
struct Given(BTreeMap<u16, (String, &'static str)>);

/// What a pasted command needs to say beyond its defaults.
struct Commands {
    program: String,
    control: String,
    sidecar: String,
    environment: String,
    flag: String,
}

pub fn run(args: Args, out: &mut Out) -> Outcome {
    let telemetry = args.telemetry.clone();
    host(None, &telemetry, async |shutdown| start(args, shutdown, out).await)
}

async fn start(args: Args, shutdown: Shutdown, out: &mut Out) -> Outcome {
    let Args { data, pods, flags, environment, ports, author, telemetry: _, ready } = args;
    let document = flags.as_deref().map(document).transpose()?;
    usable(&data)?;
    let mut given = Given::default();
    let control_address = ports.control(&mut given)?;
    let webhooks = Listen(Some(ports.webhooks(&mut given)?));
    let pod_ports = (0..pods).map(|pod| ports.pod(pod, &mut given)).collect::<Result<Vec<_>, _>>()?;
    given.are_free()?;

    let defaults = control_defaults()?;
    let control = control::Args { listen: control_address, webhooks, data: data.clone(), ends_with_its_pods: true, ..defaults };
    let running = control::start(control, shutdown.clone()).await.map_err(unstartable)?;
    let news = fill(&running.ledger, &environment, document, &author).await?;

    let mut sidecars = Vec::new();
    for (index, place) in pod_ports.into_iter().enumerate() {
        let pod = format!("dev-{}", index + 1);
        let started = sidecar::start(pod_args(&pod, &data, running.grpc, &environment, place, pods), shutdown.clone()).await;
        let sidecar::Running { tcp, uds, management, ofrep, sync, .. } = started.map_err(unstartable)?;
        sidecars.push(ready::Sidecar { pod: Some(pod), tcp, socket: uds, management, ofrep, sync });
    }
    let are_warm = tokio::time::timeout(WARM_UP, warm(&sidecars)).await.is_ok();

    let flag = first_flag(&running.ledger, &environment);
    let addresses =
        Addresses::here(Some(environment), Some(ready::Control { grpc: running.grpc, webhooks: running.webhooks, data }), sidecars);
    let _announced = ready.announce(&addresses)?;
    out.answer(&addresses, |out, addresses| print(out, addresses, &news, flag, are_warm))?;
    end(&shutdown).await
}

/// What `yardarm control` does when nothing is said: the defaults stand with its arguments and nowhere else.
fn control_defaults() -> Result<control::Args, Failure> {
    let command = control::Args::augment_args(clap::Command::new("control"));
    let matches = command.try_get_matches_from(["control"]);
    matches.and_then(|matches| control::Args::from_arg_matches(&matches)).map_err(Failure::unable)
}

/// The document of --flags, checked before anything is started.
fn document(path: &Path) -> Result<String, Failure> {
    let name = path.display();
    let documents = Documents::read(&[path.to_owned()])?;
    let problems = documents.check();
    match problems.first() {
        None => Ok(documents.joined.to_json().to_string()),
        Some(first) => {
            Err(Failure::unable(format!("{first}; see everything with `yardarm flag lint {name}` ({})", count(problems.len(), "problem"))))
        }
    }
}

/// Whether the directory of the data is there, or can be made, and can be written to.
fn usable(data: &Path) -> Result<(), Failure> {
    let probe = data.join(format!(".probe-{}", std::process::id()));
    let tried = std::fs::create_dir_all(data).and_then(|()| std::fs::write(&probe, [])).and_then(|()| std::fs::remove_file(&probe));
    tried.map_err(|error| {
        Failure::unable(format!(
            "cannot use the data directory {}: {}; make it writable, or choose another with --data",
            data.display(),
            innermost(&error)
        ))
    })
}

/// Puts flags into an environment: the document at every start, the samples when nothing was ever changed there. Says what was done.
async fn fill(ledger: &Arc<Ledger>, environment: &str, document: Option<String>, author: &Author) -> Result<String, Failure> {
    let actor = Actor::new(author.name());
    let refused = |error: control::ledger::Error| Failure::unable(format!("cannot fill environment {environment}: {error}"));
    if ledger.head(environment).is_none() {
        let create = Command::CreateEnvironment { name: environment.to_owned() };
        ledger.commit(&actor, "created by yardarm dev", create).await.map_err(refused)?;
    }
    let is_untouched = ledger.state(environment).is_some_and(|state| state.items.is_empty() && state.position.revision <= CREATED);
    let (document, reason, what) = match document {
        Some(document) => (document, "applied by yardarm dev", "flag file"),
        None if is_untouched => (SAMPLES.to_owned(), "sample flags of yardarm dev", "sample flags"),
        None => return Ok("flags as they were left".to_owned()),
    };
    let apply = Command::Apply { environment: environment.to_owned(), document, expect: None };
    let committed = ledger.commit(&actor, reason, apply).await.map_err(refused)?;
    Ok(match committed.changed {
        true => format!("{what} applied at revision {}", committed.position.revision),
        false => format!("{what} held already"),
    })
}

fn pod_args(pod: &str, data: &Path, control: SocketAddr, environment: &str, place: PodPlace, pods: u16) -> sidecar::Args {
    let PodPlace { serve: listen, management, ofrep, sync } = place;
    // The same people have the same names in the log of every pod.
    let salt_file = Some(data.join(decisions::SALT_FILE));
    let decisions = decisions::Args { dir: Some(data.join("decisions").join(pod)), salt_file, ..decisions::Args::default() };
    let socket = Some(data.join(format!("{pod}.sock"))).filter(|path| path.as_os_str().len() <= LONGEST_SOCKET);
    sidecar::Args {
        upstream: sidecar::Upstream {
            control: format!("http://{control}"),
            environment: environment.to_owned(),
            data: Some(data.join(pod)),
            pod: Some(pod.to_owned()),
            namespace: String::new(),
            node: String::new(),
        },
        // Many pods on one machine share its cores.
        serve: sidecar::Serve {
            listen,
            socket,
            management,
            ofrep: sidecar::Listen(Some(ofrep)),
            sync: sidecar::Listen(Some(sync)),
            threads: (pods > 1).then_some(1),
            decisions,
            ..sidecar::Serve::default()
        },
    }
}

/// Until every sidecar says that it serves.
async fn warm(sidecars: &[ready::Sidecar]) -> Result<(), String> {
    for sidecar in sidecars {
        let mut health = HealthClient::new(open(&sidecar.tcp.to_string()).await?);
        let watch = health.watch(HealthCheckRequest { service: String::new() }).await.map_err(|status| status.to_string())?;
        let mut states = watch.into_inner();
        while let Some(Ok(state)) = states.next().await {
            if state.status() == ServingStatus::Serving {
                break;
            }
        }
    }
    Ok(())
}

/// The flag of the pasted commands: the first one that is there.
fn first_flag(ledger: &Ledger, environment: &str) -> Option<String> {
    const KNOWN: &str = "new_checkout_flow";
    let state = ledger.state(environment)?;
    let keys = || state.items.iter().filter(|item| item.name.kind == crate::flag::ItemKind::Flag).map(|item| &item.name.key);
    keys().find(|key| *key == KNOWN).or_else(|| keys().next()).cloned()
}

fn print(out: &mut Out, addresses: &Addresses, news: &str, flag: Option<String>, are_warm: bool) -> Result<(), Failure> {
    let Addresses { environment: Some(environment), control: Some(control), sidecars, .. } = addresses else { return Ok(()) };
    out.line(format!("{}: environment {environment}, store in {}, {news}", "yardarm dev".bold(), control.data.display()))?;
    let webhooks = control.webhooks.map(|address| format!("  webhooks http://{address}")).unwrap_or_default();
    out.line(format!("  control plane  http://{}{webhooks}", control.grpc))?;
    for ready::Sidecar { pod, tcp, socket, management, ofrep, sync } in sidecars {
        let pod = pod.as_deref().unwrap_or_default();
        let socket = socket.as_ref().map(|path| format!("  unix:{}", path.display())).unwrap_or_default();
        let ofrep = ofrep.map(|address| format!("  ofrep http://{address}")).unwrap_or_default();
        let sync = sync.map(|address| format!("  sync {address}")).unwrap_or_default();
        out.line(format!("  pod {pod:<9}  {tcp}{socket}  management http://{management}{ofrep}{sync}"))?;
    }
    if !are_warm {
        out.note("the sidecars are still fetching their flags".yellow());
    }
    let Some(first) = sidecars.first() else { return Ok(()) };
    let commands = Commands {
        program: std::env::args_os().next().map_or_else(|| "yardarm".to_owned(), |path| for_shell(&path.to_string_lossy())),
        control: unless(control.grpc.port() == 8020, || format!(" --control-plane http://{}", control.grpc)),
        sidecar: unless(first.tcp.port() == 8013, || format!(" --sidecar {}", first.tcp)),
        environment: unless(environment == DEFAULT_ENVIRONMENT, || format!(" --env {environment}")),
        flag: flag.unwrap_or_else(|| "KEY".to_owned()),
    };
    out.line("try, in another terminal (Ctrl-C here ends everything):")?;
    commands.lines().into_iter().try_for_each(|line| out.line(format!("  {line}")))
}

fn unless(is_default: bool, option: impl FnOnce() -> String) -> String {
    if is_default { String::new() } else { option() }
}

/// A word as a shell takes it: a path may have a space in it.
fn for_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Commands {
    /// Evaluate, watch, kill.
    fn lines(&self) -> [String; 3] {
        let Self { program, control, sidecar, environment, flag } = self;
        [
            format!("{program} eval {flag} --key user-1{sidecar}{control}{environment}"),
            format!("{program} watch{sidecar}"),
            format!("{program} kill {flag} --reason \"trying it\" --wait 5s{control}{environment}"),
        ]
    }
}

impl Ports {
    fn control(&self, given: &mut Given) -> Result<SocketAddr, Failure> {
        given.give(self.control_port.or_else(|| self.usual(20)), "the control plane".to_owned(), "--control-port")
    }

    fn webhooks(&self, given: &mut Given) -> Result<SocketAddr, Failure> {
        given.give(self.webhooks_port.or_else(|| self.usual(21)), "webhooks".to_owned(), "--webhooks-port")
    }

    /// `pod` counts from 0.
    fn pod(&self, pod: u16, given: &mut Given) -> Result<PodPlace, Failure> {
        let Self { sidecar_port, management_port, ofrep_port, sync_port, .. } = *self;
        let mut give = |chosen: Option<u16>, offset, what: &str, option| {
            let further = |port: u16| if port == 0 { Some(0) } else { port.checked_add(pod * STRIDE) };
            given.give(chosen.or_else(|| self.usual(offset)).and_then(further), format!("{what}pod {}", pod + 1), option)
        };
        Ok(PodPlace {
            serve: give(sidecar_port, 13, "", "--sidecar-port")?,
            management: give(management_port, 14, "the management endpoints of ", "--management-port")?,
            ofrep: give(ofrep_port, 16, "OFREP of ", "--ofrep-port")?,
            sync: give(sync_port, 15, "the documents of ", "--sync-port")?,
        })
    }

    fn usual(&self, offset: u16) -> Option<u16> {
        if self.port_base == 0 { Some(0) } else { self.port_base.checked_add(offset) }
    }
}

impl Given {
    /// A port for one part and no other. (Two parts on one port would both find it free: nobody listens yet.) Port 0 is a different one each
    /// time.
    fn give(&mut self, port: Option<u16>, what: String, option: &'static str) -> Result<SocketAddr, Failure> {
        let port =
            port.ok_or_else(|| Failure::unable(format!("there is no port beyond 65535; choose lower ones with --port-base or {option}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if port == 0 {
            return Ok(address);
        }
        if let Some((other, chosen_by)) = self.0.get(&port) {
            return Err(Failure::unable(format!(
                "port {port} cannot be that of both {other} ({chosen_by}) and {what} ({option}); move one of them with its option"
            )));
        }
        self.0.insert(port, (what, option));
        Ok(address)
    }

    /// Refuses when another program has one of them.
    fn are_free(&self) -> Result<(), Failure> {
        self.0.iter().try_for_each(|(port, (what, option))| {
            free(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), what, &format!("{option} or --port-base"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(port_base: u16) -> Ports {
        let [control_port, webhooks_port, sidecar_port, management_port, ofrep_port, sync_port] = [None; 6];
        Ports { port_base, control_port, webhooks_port, sidecar_port, management_port, ofrep_port, sync_port }
    }

    #[test]
    fn a_base_of_zero_lets_the_system_pick() {
        let given = &mut Given::default();
        assert_eq!(ports(0).control(given).map(|address| address.port()), Ok(0));
        for pod in [0, 3] {
            let place = ports(0).pod(pod, given).unwrap();
            assert_eq!([place.serve, place.management, place.sync, place.ofrep].map(|address| address.port()), [0; 4]);
        }
    }

    #[test]
    fn each_further_pod_listens_ten_ports_further() {
        let given = &mut Given::default();
        for (pod, expected) in [(0, [8013, 8014, 8015, 8016]), (1, [8023, 8024, 8025, 8026])] {
            let place = ports(8000).pod(pod, given).unwrap();
            assert_eq!([place.serve, place.management, place.sync, place.ofrep].map(|address| address.port()), expected);
        }
    }

    #[test]
    fn ports_beyond_the_last_one_are_refused() {
        assert!(ports(65_530).control(&mut Given::default()).is_err_and(|failure| failure.message.contains("--port-base")));
    }

    #[test]
    fn a_path_is_pasted_as_one_word() {
        let said = |word| {
            let shell = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", for_shell(word))]).output().unwrap();
            String::from_utf8(shell.stdout).unwrap()
        };
        for word in ["target/release/yardarm", "/my programs/yardarm", "it's $HOME", "a;b", ""] {
            assert_eq!(said(word), word);
        }
        assert_eq!(for_shell("target/release/yardarm"), "target/release/yardarm");
    }

    #[test]
    fn pasted_commands_say_only_what_is_not_the_default() {
        let none = String::new;
        let usual = Commands { program: "yardarm".to_owned(), control: none(), sidecar: none(), environment: none(), flag: "a".to_owned() };
        assert_eq!(usual.lines()[0], "yardarm eval a --key user-1");
        let other = Commands { control: " --control-plane http://127.0.0.1:1".to_owned(), ..usual };
        assert_eq!(other.lines()[2], "yardarm kill a --reason \"trying it\" --wait 5s --control-plane http://127.0.0.1:1");
    }
}
