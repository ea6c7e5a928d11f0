//! Triggers, second by second: days of health, a jump of the failure rate, an incident that both arms share, users who fail as a whole.

use std::collections::VecDeque;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::draw::{arrivals, binomial, runs};
use super::{Found, quantile, share};
use crate::rollout::statistics::{Baseline, Cusum, DISTINCT_FAILING_UNITS, Margin, ln_threshold};

const DAY: u64 = 86_400;
/// 14 days of seconds, alpha 1 %: what a rollout has when nobody sets anything.
const HORIZON: u64 = 14 * DAY;
const ALPHA: f64 = 0.01;
const P0: f64 = 0.05;

pub fn play(count: usize, seed: u64, found: &mut Found) {
    let default = ln_threshold(HORIZON, 1, ALPHA);
    let fires = |what: &str, rate: f64, failing: f64, ticks: u64, threshold: f64| {
        let played = runs(count, seed, what, |rng| fires_within(rng, &mut Cusum::default(), rate, failing, ticks, threshold));
        share(&played, Option::is_some)
    };
    let at_p0: Vec<_> = [1.0, 20.0].map(|rate| fires(&format!("at p0 {rate}"), rate, P0, 20_000, ln_threshold(20_000, 1, 0.2))).to_vec();
    found.row("trigger at exactly 5 %, 20,000 s, alpha 0.2", vec![("1/s", at_p0[0]), ("20/s", at_p0[1])]);
    found.figure("G3 trigger fires at its threshold, alpha 0.2", at_p0.into_iter().fold(0.0, f64::max), "share", 0.2);
    let healthy = fires("healthy day", 5.0, 0.04, DAY, default);
    found.figure("G4 trigger fires in a day at 4 %, threshold 5 %, 5/s", healthy, "share", 0.001);

    for (goal, rate, failing, median, late) in
        [("G5", 20.0, 0.5, 2.0, 3.0), ("G5", 5.0, 0.5, 6.0, 9.0), ("G5", 1.0, 0.5, 26.0, 43.0), ("G6", 20.0, 0.1, 47.0, 73.0)]
    {
        let what = format!("1 % -> {} %, {rate}/s", failing * 100.0);
        let delays = runs(count, seed, &what, |rng| {
            let mut cusum = Cusum::default();
            let early = fires_within(rng, &mut cusum, rate, 0.01, 600, default);
            if early.is_some() { Some(0) } else { fires_within(rng, &mut cusum, rate, failing, 20_000, default) }
        });
        found.figure(format!("{goal} trigger's delay, {what}, median"), quantile(&delays, 0.5), "s", median);
        found.figure(format!("{goal} trigger's delay, {what}, p95"), quantile(&delays, 0.95), "s", late);
    }
    shared_incident((count * 3).div_ceil(20), seed, found);
    clustered(count.div_ceil(10), seed, found);
}

/// The tick in which it fires, counted from 1. Every request is a unit of its own.
fn fires_within(rng: &mut StdRng, cusum: &mut Cusum, rate: f64, failing: f64, ticks: u64, threshold: f64) -> Option<u64> {
    (1..=ticks).find(|_| {
        let requests = arrivals(rng, rate);
        cusum.step(requests, binomial(rng, requests, failing), P0);
        cusum.fires(threshold, DISTINCT_FAILING_UNITS)
    })
}

/// "Success drops by more than 10 % under the control", while both fail.
fn shared_incident(count: usize, seed: u64, found: &mut Found) {
    let threshold = ln_threshold(HORIZON, 1, ALPHA);
    let incident = |what: &str, treated: f64, control: f64, freeze: bool| {
        let played = runs(count, seed, what, |rng| {
            let (mut baseline, mut cusum) = (Baseline::default(), Cusum::default());
            (0..900).any(|second| {
                if second == 600 && freeze {
                    baseline.freeze();
                }
                let failing = if (600..660).contains(&second) { 0.4 } else { 0.03 };
                let others = arrivals(rng, control);
                baseline.observe(others, binomial(rng, others, failing));
                let requests = arrivals(rng, treated);
                let failures = binomial(rng, requests, failing);
                let Some(limit) = baseline.threshold(Margin::Relative(0.1)) else { return false };
                cusum.step(requests, failures, limit.p0);
                cusum.fires(threshold, DISTINCT_FAILING_UNITS)
            })
        });
        share(&played, |fired| *fired)
    };
    let cases = [(5.0, 495.0), (50.0, 450.0), (5.0, 5.0)];
    let (mut moving, mut frozen) = (0.0f64, 1.0f64);
    for (treated, control) in cases {
        let what = format!("shared incident, {treated}/s beside {control}/s");
        let (with, without) = (incident(&what, treated, control, false), incident(&what, treated, control, true));
        (moving, frozen) = (moving.max(with), frozen.min(without));
        found.row(what, vec![("fires", with), ("frozen fires", without)]);
    }
    found.figure("G7 relative trigger fires in an incident that both arms share", moving, "share", 0.0);
    found.figure("G7 the same with a frozen baseline stays silent", 1.0 - frozen, "share", 0.0);
}

/// Sessions of 20 requests, a few of which fail as a whole.
fn clustered(count: usize, seed: u64, found: &mut Found) {
    let mut worst = 0.0f64;
    for failing in [0.02, 0.03] {
        for sessions in [0.25, 1.0] {
            let what = format!("{} % of sessions fail, {sessions}/s", failing * 100.0);
            let day = |once: bool| {
                let played = runs(count, seed, &what, |rng| clustered_day(rng, sessions, failing, once));
                share(&played, |fired| *fired)
            };
            let (once, each) = (day(true), day(false));
            worst = worst.max(once);
            found.row(what, vec![("fires", once), ("by request", each)]);
        }
    }
    found.figure("G8 trigger fires in a day, 2 to 3 % of sessions fail, threshold 5 %", worst, "share", 0.0);
}

struct Session {
    unit: u64,
    fails: bool,
    requests_left: u32,
    counted_at: Option<u64>,
}

/// `once`: the first outcome of a unit in each minute counts, and three units must fail. Else every request counts.
fn clustered_day(rng: &mut StdRng, sessions_per_second: f64, failing: f64, once: bool) -> bool {
    const WINDOW: u64 = 60;
    let threshold = ln_threshold(HORIZON, 1, ALPHA);
    let mut cusum = Cusum::default();
    let mut open: Vec<Session> = Vec::new();
    let mut failed: VecDeque<(u64, u64)> = VecDeque::new();
    let mut units = 0;
    (0..DAY).any(|now| {
        for _ in 0..arrivals(rng, sessions_per_second) {
            units += 1;
            open.push(Session { unit: units, fails: rng.random_bool(failing), requests_left: 20, counted_at: None });
        }
        let (mut requests, mut failures) = (0, 0);
        for session in &mut open {
            // A request each three seconds on average.
            if rng.random_range(0..3) != 0 {
                continue;
            }
            session.requests_left -= 1;
            let counts = !once || session.counted_at.is_none_or(|at| now >= at + WINDOW);
            if counts {
                session.counted_at = Some(now);
                requests += 1;
                failures += u64::from(session.fails);
            }
            if session.fails && failed.back() != Some(&(now, session.unit)) {
                failed.push_back((now, session.unit));
            }
        }
        open.retain(|session| session.requests_left > 0);
        while failed.front().is_some_and(|(at, _)| at + WINDOW <= now) {
            failed.pop_front();
        }
        if !cusum.step(requests, failures, P0) {
            return false;
        }
        let distinct = if once { distinct(&failed) } else { usize::MAX };
        cusum.fires(threshold, distinct)
    })
}

/// Of the few that fail within a minute.
fn distinct(failed: &VecDeque<(u64, u64)>) -> usize {
    let mut units: Vec<u64> = failed.iter().map(|(_, unit)| *unit).collect();
    units.sort_unstable();
    units.dedup();
    units.len()
}
