//! `yardarm eval`: what a context is served, and why, rule by rule.

use std::path::PathBuf;

use owo_colors::OwoColorize as _;
use serde::Serialize;
use tonic::metadata::MetadataValue;

use super::connect::{ControlPlane, Environment, Sidecar};
use super::context;
use super::decision::Decision;
use super::documents::{Documents, Located};
use super::duration::rough;
use super::exit::{Exit, Failure, Outcome};
use super::output::Out;
use super::replay::{Flags, Replay};
use super::status;
use crate::flag::{Asked, Context, Explanation, Lookup as _, Segments, compile};
use crate::sidecar::{INSPECTION, PURPOSE};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag
    key: String,
    #[command(flatten)]
    context: context::Args,
    /// Evaluate a flag document here, without a sidecar or a control plane; given several times, all of them are one document
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    sidecar: Sidecar,
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    environment: Environment,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    decision: Decision,
    /// The sidecar that decided; nobody when it was decided here from files.
    sidecar: Option<String>,
    explanation: Option<Explanation>,
    /// Why there is no explanation, or why it tells of another decision than the sidecar's.
    remark: Option<String>,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { key, context, files, sidecar, control, environment } = args;
    let context = context.context()?;
    let answer = match files.is_empty() {
        false => from_files(&key, &context, &files)?,
        true => from_sidecar(key, &context, &sidecar, &control, environment.name).await?,
    };
    out.answer(&answer, print)?;
    Ok(if answer.decision.error_code.is_some() { Exit::Problem } else { Exit::Done })
}

/// What the files say, as if they were the whole environment.
fn from_files(key: &str, context: &Context, files: &[PathBuf]) -> Result<Answer, Failure> {
    let documents = Documents::read(files)?;
    let problems = documents.check();
    if !problems.is_empty() {
        let lines = problems.iter().map(Located::to_string);
        return Err(Failure::problem("the flag document has problems, so nothing is evaluated").with_details(lines));
    }
    let document = &documents.joined;
    let (segments, _) = Segments::compile(document.segments.iter().map(|(key, segment)| (key.as_str(), segment)));
    let compiled = document.flags.iter().filter_map(|(key, flag)| Some((key.clone(), compile(key, flag, &segments).ok()?)));
    // A file is as new as it is.
    let flags = Flags { by_key: compiled.collect(), age_ms: 0 };
    let flag = flags.flag(key).ok_or_else(|| {
        let known: Vec<_> = document.flags.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "they hold no flags".to_owned() } else { format!("there are {}", known.join(", ")) };
        Failure::problem(format!("there is no flag `{key}` in these files; {known}"))
    })?;
    let decision = Decision::made_here(key, &flag.decide(context, &flags));
    Ok(Answer { decision, sidecar: None, explanation: Some(flag.explain(context, &flags)), remark: None })
}

/// The answer is the sidecar's own. The explanation replays it with the definition at the revision that the sidecar decided with, and
/// says so when the two differ.
async fn from_sidecar(
    key: String,
    context: &Context,
    sidecar: &Sidecar,
    control: &ControlPlane,
    environment: String,
) -> Result<Answer, Failure> {
    let mut request = tonic::Request::new(v1::EvaluateRequest {
        flag_key: key.clone(),
        context: Some(context.into()),
        default_value: None,
        r#type: v1::ValueType::Unspecified.into(),
    });
    request.set_timeout(control.timeout);
    // Nobody is served by it, so that no decision log and no evidence is to count it.
    request.metadata_mut().insert(PURPOSE, MetadataValue::from_static(INSPECTION));
    let answer = sidecar.connect().await?.evaluate(request).await.map_err(status::of_sidecar)?.into_inner();
    let decision = Decision::from(answer.decision.unwrap_or_default());
    let mut answer = Answer { decision, sidecar: Some(sidecar.address.clone()), explanation: None, remark: None };
    let Decision { error_code: None, revision: Some(revision), .. } = answer.decision else { return Ok(answer) };
    let replay = Replay { control, environment, key, decision: &answer.decision, revision };
    match replay.explain(context).await {
        Ok(explanation) if answer.decision.agrees_with(&explanation) => answer.explanation = Some(explanation),
        Ok(explanation) => {
            answer.remark = Some(format!(
                "the control plane's definition at revision {revision} decides otherwise ({} for {}); \
                 a prerequisite may have changed since, or the sidecar follows another control plane or environment",
                explanation.variant.as_deref().unwrap_or("the caller's default"),
                explanation.reason,
            ));
            answer.explanation = Some(explanation);
        }
        Err(failure) => answer.remark = Some(format!("no explanation: {}", failure.message)),
    }
    Ok(answer)
}

fn print(out: &mut Out, answer: &Answer) -> Result<(), Failure> {
    let Answer { decision, sidecar, explanation, remark } = answer;
    out.line(format!("{} = {}", decision.flag, decision.sentence()))?;
    if let Decision { error_code: None, revision: Some(revision), age_ms: Some(age_ms), .. } = decision {
        let (sidecar, age) = (sidecar.as_deref().unwrap_or_default(), rough(std::time::Duration::from_millis(*age_ms)));
        out.line(format!("decided by the sidecar at {sidecar} with revision {revision}, known to be the newest {age} ago").dimmed())?;
    }
    for step in explanation.iter().flat_map(|explanation| &explanation.steps) {
        let sign = if step.decides { "->" } else { "  " };
        out.line(format!("  {sign} {}: {}", step.name, step.outcome))?;
        step.conditions.iter().try_for_each(|asked| print_condition(out, asked, 7))?;
    }
    if let Some(remark) = remark {
        out.note(remark.yellow());
    }
    Ok(())
}

fn print_condition(out: &mut Out, asked: &Asked, indent: usize) -> Result<(), Failure> {
    let Asked { condition, holds, found, within } = asked;
    let holds = if *holds { "yes".green().to_string() } else { "no ".red().to_string() };
    out.line(format!("{:indent$}{holds} {condition}: {found}", ""))?;
    within.iter().try_for_each(|asked| print_condition(out, asked, indent + 4))
}
