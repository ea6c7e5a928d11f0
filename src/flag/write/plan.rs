//! Rollouts, metrics and guards to canonical JSON.

use serde_json::Value as Json;

use super::super::document::Weight;
use super::super::plan::{
    AlphaOnRetry, Approval, Check, Gate, Guard, GuardBound, Margin, Metric, MetricKind, Mode, OnDeadline, OnFail, Plan, SampleRatio, Share,
    Stage, Start,
};
use super::super::span::Span;
use super::super::value::number_to_json;
use super::{Object, list, set, text};

pub(super) fn plan(plan: &Plan) -> Json {
    let Plan { baseline, treatments, stages, retention, cool_down, units_per_day, alpha_on_retry } = plan;
    Object::default()
        .put("baseline", baseline.as_str())
        .put_some("treatments", set(treatments))
        .put_some("stages", list(stages, stage))
        .put_some("retention", span(*retention))
        .put_some("coolDown", span(*cool_down))
        .put_some("unitsPerDay", units_per_day.map(Json::from))
        .put_some("alphaOnRetry", (*alpha_on_retry != AlphaOnRetry::default()).then(|| alpha_on_retry.as_str().into()))
        .finish()
}

fn span(span: Option<Span>) -> Option<Json> {
    span.map(|span| span.to_string().into())
}

fn percent(buckets: u32) -> Json {
    Weight::Percent(buckets).to_string().into()
}

fn stage(stage: &Stage) -> Json {
    let Stage { name, share, start, bake, deadline, on_deadline, gates } = stage;
    let object = match share {
        Share::Percent(buckets) => Object::default().put("percent", percent(*buckets)),
        Share::Weights(weights) => {
            let weights = weights.iter().map(|(treatment, buckets)| (treatment.clone(), percent(*buckets)));
            Object::default().put("weights", Json::Object(weights.collect()))
        }
    };
    let start = match start {
        Start::AtOnce => None,
        Start::After(span) => Some(Object::default().put("after", span.to_string()).finish()),
        Start::At(instant) => Some(Object::default().put("at", instant.as_str()).finish()),
    };
    object
        .put_some("name", text(name))
        .put_some("start", start)
        .put_some("bake", span(*bake))
        .put_some("deadline", span(*deadline))
        .put_some("onDeadline", (*on_deadline != OnDeadline::default()).then(|| on_deadline.as_str().into()))
        .put_some("gates", list(gates, gate))
        .finish()
}

fn gate(gate: &Gate) -> Json {
    match gate {
        Gate::Approval(Approval { by, count }) => {
            let approval = Object::default().put_some("by", set(by)).put_some("count", (*count != 1).then(|| Json::from(*count)));
            Object::default().put("approval", approval.finish())
        }
        Gate::Metrics(checks) => Object::default().put("metrics", checks.iter().map(check).collect::<Json>()),
        Gate::Comparison(one) => Object::default().put("comparison", check(one)),
        Gate::SampleRatio(SampleRatio { alpha, coverage }) => {
            let ratio =
                Object::default().put_some("alpha", alpha.map(number_to_json)).put_some("coverage", coverage.then_some(Json::Bool(true)));
            Object::default().put("sampleRatio", ratio.finish())
        }
    }
    .finish()
}

/// A metric of which nothing else is said is written as its name.
fn check(check: &Check) -> Json {
    let Check { metric, mode, margin: allowed, min_units, on_fail } = check;
    if (mode, allowed, min_units, on_fail) == (&None, &None, &None, &None) {
        return metric.as_str().into();
    }
    Object::default()
        .put("metric", metric.as_str())
        .put_some("mode", mode.map(Mode::as_str).map(Json::from))
        .put_some("margin", allowed.map(margin))
        .put_some("minUnits", min_units.map(Json::from))
        .put_some("onFail", on_fail.map(OnFail::as_str).map(Json::from))
        .finish()
}

fn margin(margin: Margin) -> Json {
    match margin {
        Margin::Relative(share) => Object::default().put("relative", number_to_json(share)),
        Margin::Absolute(amount) => Object::default().put("absolute", number_to_json(amount)),
    }
    .finish()
}

pub(super) fn metric(metric: &Metric) -> Json {
    let Metric { kind, direction, event, margin: allowed, mode, min_units, on_fail, lag, expected } = metric;
    let object = Object::default().put("kind", kind.as_str());
    match kind {
        MetricKind::Binomial | MetricKind::Ratio => object,
        MetricKind::Mean { clip } => object.put("clip", clip.iter().copied().map(number_to_json).collect::<Json>()),
        MetricKind::SlowShare { above } => object.put("above", number_to_json(*above)),
    }
    .put("direction", direction.as_str())
    .put_some("event", text(event))
    .put_some("margin", allowed.map(margin))
    .put_some("mode", mode.map(Mode::as_str).map(Json::from))
    .put_some("minUnits", min_units.map(Json::from))
    .put_some("onFail", on_fail.map(OnFail::as_str).map(Json::from))
    .put_some("lag", span(*lag))
    .put_some("expected", expected.map(number_to_json))
    .finish()
}

/// A guard that is called as its metric needs no name.
pub(super) fn guard(guard: &Guard) -> Json {
    let Guard { name, metric, bound, attributable } = guard;
    let object = Object::default().put("metric", metric.as_str()).put_some("name", (name != metric).then(|| name.as_str().into()));
    match bound {
        GuardBound::Above(share) => object.put("above", number_to_json(*share)),
        GuardBound::Below(share) => object.put("below", number_to_json(*share)),
        GuardBound::Worse(than) => object.put("worse", margin(*than)),
    }
    .put_some("attributable", attributable.then_some(Json::Bool(true)))
    .finish()
}
