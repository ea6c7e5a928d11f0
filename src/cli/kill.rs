//! `yardarm kill` and `yardarm restore`, and the proof that every pod has it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize as _;
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::connect::{Admin, Author, ControlPlane, Environment};
use super::duration::{self, micros, rough};
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::status;
use super::view::Position;
use crate::wire::v1;

/// The longest that the control plane waits for pods.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How often the progress is drawn anew when no pod answers.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct KillArgs {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    target: Target,
    /// Come back with this share of traffic only, the same people first [default: the rules as they were]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    percent: Option<f64>,
}

#[derive(Debug, clap::Args)]
struct Target {
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    author: Author,
    /// The flag
    key: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    /// Wait until every pod has confirmed, at most this long [default when given without a value: 5s]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "5s", value_parser = wait)]
    wait: Option<Duration>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    action: &'static str,
    flag: String,
    environment: String,
    #[serde(flatten)]
    position: Position,
    /// False when it was killed, or not killed, already.
    changed: bool,
    percent: Option<f64>,
    propagation: Option<Propagation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Propagation {
    pods: u32,
    applied: u32,
    #[serde(flatten)]
    latency: Option<Latency>,
    silent: Vec<String>,
    rejected: Vec<Rejected>,
}

/// Of the pods whose time is known: who had it long ago, or came afterwards, has none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    p50_us: u64,
    p99_us: u64,
    slowest_us: u64,
    slowest_pod: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rejected {
    pod: String,
    key: String,
    message: String,
}

pub async fn kill(args: KillArgs, out: &mut Out) -> Outcome {
    let Target { control, environment, author, key, reason, wait } = args.target;
    let mut admin = control.connect().await?;
    let request =
        v1::KillFlagRequest { environment: environment.name.clone(), key: key.clone(), intent: Some(author.intends(reason, None)) };
    let answer = admin.kill_flag(control.ask(request)).await.map_err(status::of_change)?.into_inner();
    let done = Done {
        action: "killed",
        flag: key.clone(),
        environment: environment.name,
        position: answer.position.into(),
        changed: answer.changed,
        percent: None,
        propagation: None,
    };
    // A kill may reach a pod ahead of the log, in its own lane: the flag is named so that this counts.
    tell(admin, done, key, wait, out).await
}

pub async fn restore(args: RestoreArgs, out: &mut Out) -> Outcome {
    let RestoreArgs { target, percent } = args;
    let Target { control, environment, author, key, reason, wait } = target;
    let mut admin = control.connect().await?;
    let request = v1::RestoreFlagRequest {
        environment: environment.name.clone(),
        key: key.clone(),
        percent,
        intent: Some(author.intends(reason, None)),
    };
    let answer = admin.restore_flag(control.ask(request)).await.map_err(status::of_change)?.into_inner();
    // With another percentage the definition changes too, and that travels in the log only.
    let urgent_key = if percent.is_some() { String::new() } else { key.clone() };
    let done = Done {
        action: "restored",
        flag: key,
        environment: environment.name,
        position: answer.position.into(),
        changed: answer.changed,
        percent,
        propagation: None,
    };
    tell(admin, done, urgent_key, wait, out).await
}

/// Says what was done and, with `wait`, that every pod has it or which have not.
async fn tell(admin: Admin, mut done: Done, urgent_key: String, wait: Option<Duration>, out: &mut Out) -> Outcome {
    // A flag that is not killed has no revision at which it was restored, so there is none to wait for and no success to tell of.
    let is_idle = !done.changed && done.action == "restored";
    let Some(wait) = wait.filter(|_| !is_idle) else {
        out.answer(&done, |out, done| match done.changed {
            true => out.line(format!("{}; see which pods have it with `yardarm pods`, or let --wait tell", done.sentence())),
            false => out.line(done.standing()),
        })?;
        return Ok(Exit::Done);
    };
    if !done.changed {
        out.note(done.standing());
    }
    let propagation = await_applied(admin, &done, urgent_key, wait, out).await.map_err(|failure| Failure {
        exit: Exit::Incomplete,
        message: format!("{}, but it is not known which pods have it: {}", done.sentence(), failure.message),
        details: failure.details,
    })?;
    let exit = if propagation.is_complete() { Exit::Done } else { Exit::Incomplete };
    done.propagation = Some(propagation);
    out.answer(&done, |out, done| print(out, done, wait))?;
    Ok(exit)
}

async fn await_applied(mut admin: Admin, done: &Done, flag_key: String, wait: Duration, out: &Out) -> Result<Propagation, Failure> {
    let request = v1::AwaitAppliedRequest {
        environment: done.environment.clone(),
        revision: done.position.revision,
        flag_key,
        timeout_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
    };
    let bar = progress(out);
    let mut news = admin.await_applied(request).await.map_err(status::of_control)?.into_inner();
    let mut newest = None;
    while let Some(news) = news.next().await {
        let news = news.map_err(status::of_control)?;
        bar.set_length(news.pods.into());
        bar.set_position(news.applied.into());
        let is_last = news.done;
        newest = Some(news);
        if is_last {
            break;
        }
    }
    bar.finish_and_clear();
    match newest {
        Some(newest) if newest.done => Ok(newest.into()),
        _ => Err(Failure::unable("the control plane ended the stream before the time was up")),
    }
}

/// Drawn on standard error, and only when that is a terminal. It ticks by itself, so that the time of a wait for a silent pod goes on.
fn progress(out: &Out) -> ProgressBar {
    if out.is_json() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} pods, {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

fn print(out: &mut Out, done: &Done, wait: Duration) -> Result<(), Failure> {
    out.line(summary(done))?;
    let Some(Propagation { pods, silent, rejected, .. }) = &done.propagation else { return Ok(()) };
    for pod in silent {
        out.line(format!("no answer in {} from pod {pod}", rough(wait)).red())?;
    }
    for Rejected { pod, key, message } in rejected {
        out.line(format!("pod {pod} rejected {key}: {message}").red())?;
    }
    if *pods == 0 {
        out.note(format!(
            "no sidecar follows environment {}, so nobody could confirm; it is stored for the next one that connects",
            done.environment
        ));
    } else if !silent.is_empty() {
        out.note("it is stored, and they get it first when they connect; until then they serve what they hold, see `yardarm pods`");
    }
    Ok(())
}

/// The line that a kill with --wait ends with.
fn summary(done: &Done) -> String {
    let sentence = done.sentence();
    match &done.propagation {
        None => sentence,
        Some(Propagation { pods, applied: 0, .. }) => format!("{sentence}: applied on 0 of {pods} pods"),
        Some(Propagation { pods, applied, latency: None, .. }) => format!("{sentence}: applied on {applied} of {pods} pods"),
        Some(Propagation { pods, applied, latency: Some(Latency { p50_us, p99_us, slowest_us, slowest_pod }), .. }) => {
            let (p50, p99, slowest) = (micros(*p50_us), micros(*p99_us), micros(*slowest_us));
            format!("{sentence}: applied on {applied} of {pods} pods, p50 {p50}, p99 {p99}, slowest {slowest} (pod {slowest_pod})")
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let value = text.trim_end_matches('%').parse::<f64>().ok().filter(|value| (0.0..=100.0).contains(value));
    value.ok_or_else(|| format!("`{text}` is not a percentage; expected a number from 0 to 100"))
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration::parse(text)?;
    match wait {
        Duration::ZERO => Err("there is nothing to wait for in no time; expected 1ms to 10m".to_owned()),
        long if long > LONGEST_WAIT => Err(format!("`{text}` is longer than the control plane waits; expected 1ms to 10m")),
        wait => Ok(wait),
    }
}

impl Done {
    /// Why there was nothing to do.
    fn standing(&self) -> String {
        let Self { action, flag, position, .. } = self;
        match *action {
            "killed" => format!("{flag} was killed already, at revision {}", position.revision),
            _ => format!(
                "{flag} is not killed, so there was nothing to restore (revision {}); `yardarm pods` shows what each pod holds",
                position.revision
            ),
        }
    }

    fn sentence(&self) -> String {
        let Self { action, flag, position, percent, .. } = self;
        let share = percent.map(|percent| format!(" to {percent} %")).unwrap_or_default();
        format!("{action} {flag}{share} at revision {}", position.revision)
    }
}

impl Propagation {
    /// Nobody at all is not everybody: without a pod that says so, a kill is only a hope.
    fn is_complete(&self) -> bool {
        self.pods > 0 && self.applied == self.pods
    }
}

impl From<v1::Propagation> for Propagation {
    fn from(news: v1::Propagation) -> Self {
        let v1::Propagation { revision: _, pods, applied, p50_us, p99_us, slowest_us, slowest_pod, silent, rejected, done: _ } = news;
        let rejected = rejected
            .into_iter()
            .map(|v1::PodRejection { pod, rejection }| {
                let v1::Rejection { key, message, .. } = rejection.unwrap_or_default();
                Rejected { pod, key, message }
            })
            .collect();
        let latency = (!slowest_pod.is_empty()).then_some(Latency { p50_us, p99_us, slowest_us, slowest_pod });
        Self { pods, applied, latency, silent, rejected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(propagation: Propagation) -> Done {
        let position = Position { epoch: 1, revision: 7 };
        let (flag, environment) = ("new_checkout_flow".to_owned(), "prod".to_owned());
        Done { action: "killed", flag, environment, position, changed: true, percent: None, propagation: Some(propagation) }
    }

    fn propagation(pods: u32, applied: u32) -> Propagation {
        let slowest_pod = "checkout-7f9c".to_owned();
        let latency = Some(Latency { p50_us: 1_210, p99_us: 3_790, slowest_us: 4_120, slowest_pod });
        Propagation { pods, applied, latency, silent: Vec::new(), rejected: Vec::new() }
    }

    #[test]
    fn a_latency_that_is_not_known_is_left_out() {
        let untimed = done(v1::Propagation { pods: 3, applied: 3, done: true, ..v1::Propagation::default() }.into());
        assert_eq!(summary(&untimed), "killed new_checkout_flow at revision 7: applied on 3 of 3 pods");
        let json = serde_json::to_value(&untimed).unwrap();
        assert!(json["propagation"].get("p50Us").is_none() && json["propagation"]["applied"] == 3, "{json}");
    }

    #[test]
    fn the_last_line_of_a_kill_has_the_shape_that_scripts_know() {
        let line = summary(&done(propagation(812, 812)));
        assert_eq!(
            line,
            "killed new_checkout_flow at revision 7: applied on 812 of 812 pods, p50 1.2 ms, p99 3.8 ms, slowest 4.1 ms (pod checkout-7f9c)"
        );
    }

    #[test]
    fn nobody_is_not_everybody() {
        assert!(propagation(3, 3).is_complete());
        assert!(!propagation(3, 2).is_complete());
        assert!(!propagation(0, 0).is_complete());
    }

    #[test]
    fn a_wait_is_positive_and_bounded() {
        assert_eq!(wait("5s"), Ok(Duration::from_secs(5)));
        assert!(wait("0s").is_err() && wait("11m").is_err());
    }

    #[test]
    fn a_percentage_is_between_nobody_and_everybody() {
        assert_eq!((percent("5"), percent("0.5%"), percent("100")), (Ok(5.0), Ok(0.5), Ok(100.0)));
        for text in ["101", "-1", "NaN", "five"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
