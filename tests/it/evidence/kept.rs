//! Both places where evidence is kept: what they count, what they refuse, and what one of them has after a restart.

use std::sync::Arc;

use yardarm::clock::{Clock, ManualClock};
use yardarm::control::evidence::{Durable, EPOCHS_KEPT, Evidence, FlagName, Memory, Pushed, TOTALS_KEPT, UNITS};
use yardarm::control::store;
use yardarm::rollout::statistics::Arm;
use yardarm::wire::evidence::{Counter, Epoch, Metric, Outcome, Report, Shape, Unit, Variant};

fn name() -> FlagName {
    FlagName { environment: "prod".into(), key: "checkout".into() }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(1_000_000_000))
}

async fn on(store: &store::Memory) -> Durable {
    Durable::on(Arc::new(store.clone()), clock()).await.unwrap()
}

async fn both() -> [Arc<dyn Evidence>; 2] {
    [Arc::new(Memory::new(clock())), Arc::new(on(&store::Memory::new()).await)]
}

fn unit(hash: u64, revenue: f64) -> Unit {
    Unit { hash, first_ms: 5, is_apart: false, outcomes: vec![Outcome { metric: 1, x: revenue, y: 0.0 }] }
}

fn report(instance: &str, boot: u8, seq: u64, revision: u64, counts: (u64, u64), units: Vec<Unit>) -> Report {
    let metrics = [("errors", Shape::Share), ("revenue", Shape::Mean)].map(|(name, shape)| Metric { name: name.into(), shape });
    let counter = Counter { metric: 0, n: counts.0, k: counts.1, n_raw: counts.0, k_raw: counts.1, failing: vec![7] };
    let variant = Variant { name: "on".into(), exposures: units.len() as u64, counters: vec![counter], units };
    let epoch = Epoch { flag: "checkout".into(), revision, life: 0, sampling_rate: 1.0, metrics: metrics.into(), variants: vec![variant] };
    Report { environment: "prod".into(), instance: instance.into(), pod: instance.into(), boot: [boot; 16], seq, epochs: vec![epoch] }
}

fn counts(evidence: &dyn Evidence, revision: u64) -> (u64, u64) {
    evidence.counters(&name(), revision).iter().fold((0, 0), |(n, k), counted| (n + counted.counts.n, k + counted.counts.k))
}

/// Units and the sum of their revenue.
fn revenue(evidence: &dyn Evidence, revision: u64) -> (u64, f64) {
    let arms = evidence.arms(&name(), revision, i64::MAX).unwrap();
    let arm = &arms.variants[0];
    let Arm::Mean { n, .. } = arm.metrics[1].1 else { panic!("{arm:?}") };
    (arm.units, (arm.metrics[1].1.estimate().unwrap() * n as f64).round())
}

#[tokio::test]
async fn reports_count_once_by_instance_boot_and_number() {
    for evidence in both().await {
        // The reports of `counters` in the reference for statistics.
        let reports =
            [("a", 1, 1, 10, 1), ("a", 1, 2, 25, 2), ("a", 1, 2, 25, 2), ("a", 1, 1, 10, 1), ("b", 7, 1, 5, 0), ("a", 2, 1, 3, 1)];
        let more = [("a", 2, 2, 8, 1), ("a", 1, 3, 30, 2)];
        let mut counted = Vec::new();
        for (instance, boot, seq, n, k) in reports.into_iter().chain(more) {
            let report = report(instance, boot, seq, 1, (n, k), vec![unit(seq, 10.0)]);
            counted.push(evidence.accept(report).await.unwrap());
        }
        assert_eq!(counted, [true, true, false, false, true, true, true, true]);
        assert_eq!(counts(&*evidence, 1), (43, 3));
        assert_eq!(evidence.book().read().refused().duplicates, 2);
        assert_eq!(revenue(&*evidence, 1), (3, 60.0), "three units, of which six records are told");
        assert_eq!(evidence.counters(&name(), 1)[0].failing, [7]);
        assert!(evidence.exposed(&name())[0].1 > 2.5);
        assert!(evidence.counters(&name(), 2).is_empty() && evidence.arms(&name(), 2, i64::MAX).is_none());
    }
}

#[tokio::test]
async fn less_than_before_of_one_boot_is_dropped_and_told() {
    for evidence in both().await {
        for (seq, n) in [(1, 10), (2, 9), (3, 12)] {
            evidence.accept(report("a", 1, seq, 1, (n, 1), Vec::new())).await.unwrap();
        }
        assert_eq!((counts(&*evidence, 1), evidence.book().read().refused().epochs), ((12, 1), 1));
    }
}

#[tokio::test]
async fn of_a_flag_the_newest_revisions_have_units_and_older_ones_totals() {
    for evidence in both().await {
        let last = (EPOCHS_KEPT + TOTALS_KEPT + 10) as u64;
        for revision in 1..=last {
            evidence.accept(report("a", 1, revision, revision, (2, 1), vec![unit(revision, 1.0)])).await.unwrap();
        }
        let summaries = evidence.summaries(&name());
        assert_eq!((summaries.len(), summaries[0].revision), (EPOCHS_KEPT + TOTALS_KEPT, last));
        assert_eq!(summaries.iter().filter(|summary| summary.has_units).count(), EPOCHS_KEPT);
        let old = &summaries[EPOCHS_KEPT].variants[0];
        assert_eq!((old.units, old.metrics[0].counts.n), (1, 2));
        // Too late.
        evidence.accept(report("b", 1, 1, 3, (5, 5), Vec::new())).await.unwrap();
        assert_eq!(evidence.summaries(&name()), summaries);
    }
}

#[tokio::test]
async fn of_pushed_metrics_the_highest_version_stands() {
    for evidence in both().await {
        let push = |version, k| Pushed { version, watermark_us: 7, arms: [("on".into(), Arm::Binomial { n: 100, k })].into() };
        for (version, k, taken) in [(2, 5, true), (1, 9, false), (2, 9, false), (3, 6, true)] {
            assert_eq!(evidence.push(name(), "conversion".into(), push(version, k)).await.unwrap(), taken, "{version}");
        }
        assert_eq!(evidence.pushed(&name(), "conversion"), Some(push(3, 6)));
        assert_eq!(evidence.pushed(&name(), "errors"), None);
    }
}

#[tokio::test]
async fn a_restart_has_what_was_acknowledged_and_still_counts_it_once() {
    let store = store::Memory::new();
    let before = on(&store).await;
    for seq in 1..=3 {
        before.accept(report("a", 1, seq, 1, (10 * seq, seq), vec![unit(seq, 10.0)])).await.unwrap();
    }
    before.push(name(), "errors".into(), Pushed { version: 1, watermark_us: 7, arms: Default::default() }).await.unwrap();
    drop(before);
    let after = on(&store).await;
    assert!(!after.accept(report("a", 1, 3, 1, (30, 3), vec![unit(3, 10.0)])).await.unwrap());
    after.accept(report("a", 1, 4, 1, (40, 4), vec![unit(1, 10.0)])).await.unwrap();
    assert_eq!((counts(&after, 1), revenue(&after, 1)), ((40, 4), (3, 40.0)));
    assert_eq!(after.pushed(&name(), "errors").map(|pushed| pushed.version), Some(1));
    after.forget(name()).await.unwrap();
    drop(after);
    assert!(on(&store).await.book().read().flag(&name()).is_none());
}

/// So many that the log is written together more than once.
#[tokio::test]
async fn a_million_units_and_no_more_and_all_of_them_after_a_restart() {
    const EACH: u64 = 50_000;
    let store = store::Memory::new();
    let before = on(&store).await;
    let reports = UNITS as u64 / EACH + 2;
    for number in 0..reports {
        let units = (number * EACH..(number + 1) * EACH).map(|hash| unit(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15), 1.0)).collect();
        before.accept(report("a", 1, number + 1, 1, (number, 0), units)).await.unwrap();
    }
    let expected = (UNITS as u64, UNITS as f64);
    let (known, bytes) = before.book().read().size();
    assert_eq!((revenue(&before, 1), known), (expected, UNITS));
    assert!(bytes < UNITS * 128, "{bytes} bytes");
    drop(before);
    let view = store::Store::view(&store).await.unwrap();
    let under = |prefix| store::Range::under(prefix);
    assert!(!view.range(under("evidence/"), store::Order::Ascending, 1).await.unwrap().is_empty(), "no checkpoint was written");
    assert!(view.range(under("log/"), store::Order::Ascending, 100).await.unwrap().len() < reports as usize, "the log was not cut");
    let after = on(&store).await;
    assert_eq!((revenue(&after, 1), counts(&after, 1)), (expected, (reports - 1, 0)));
    assert_eq!(after.arms(&name(), 1, i64::MAX).unwrap().refused, 2 * EACH);
    assert!(!after.accept(report("a", 1, reports, 1, (reports - 1, 0), Vec::new())).await.unwrap());
}
