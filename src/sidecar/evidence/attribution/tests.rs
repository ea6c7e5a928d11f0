//! Of time that is an argument, and of a flag with one metric of each kind.

use super::*;
use crate::flag::{CompiledFlag, Document, Segments, compile};

const SECOND: Micros = 1_000_000;
const OFF: u16 = 0;
const ON: u16 = 1;

fn flag() -> CompiledFlag {
    let text = r#"
flags:
  checkout:
    variants: { "off": false, "on": true }
    defaultVariant: "off"
    metrics:
      errors: { kind: binomial, direction: lower }
      late: { kind: binomial, direction: higher, event: errors, lag: 1h }
      revenue: { kind: mean, direction: higher, clip: [0, 100], event: paid }
      failed: { kind: ratio, direction: lower, event: request }
"#;
    let document = Document::parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    compile("checkout", &document.flags["checkout"], &Segments::none()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn outcome(event: &str, unit: u64, value: f64) -> Outcome {
    Outcome { event: event.to_owned(), unit, person: format!("user-{unit}"), value, weight: 2.0, key: None, at_us: None }
}

fn expose(attribution: &mut Attribution, revision: u64, unit: u64, variant: u16, at_us: Micros) {
    attribution.expose(&Exposure::of(&flag(), revision, unit, variant, at_us));
}

fn variant<'e>(epochs: &'e [v1::EpochEvidence], revision: u64, name: &str) -> &'e v1::VariantEvidence {
    let epoch = epochs.iter().find(|epoch| epoch.revision == revision).unwrap();
    epoch.variants.iter().find(|variant| variant.variant == name).unwrap()
}

#[test]
fn an_outcome_belongs_to_what_its_unit_was_served_last() {
    let mut attribution = Attribution::new(100);
    expose(&mut attribution, 1, 7, OFF, 0);
    expose(&mut attribution, 2, 7, ON, SECOND);
    expose(&mut attribution, 2, 8, OFF, SECOND);
    let tracked = attribution.track(&[outcome("errors", 7, 1.0), outcome("errors", 9, 1.0), outcome("typo", 7, 1.0)], 2 * SECOND);
    assert_eq!(tracked, Tracked { attributed: 1, unattributed: 2, duplicates: 0 });
    let epochs = attribution.report(true).unwrap();
    let on = variant(&epochs, 2, "on");
    assert_eq!((on.exposures, on.counters[0].n, on.counters[0].k, &on.counters[0].failing[..]), (1, 1, 1, &[7][..]));
    assert_eq!(on.units[0].outcomes.iter().map(|outcome| (outcome.metric, outcome.x)).collect::<Vec<_>>(), [(0, 1.0), (2, 1.0)]);
    assert_eq!((variant(&epochs, 1, "off").exposures, variant(&epochs, 1, "off").units.len()), (1, 1));
    assert!(attribution.report(true).is_none(), "nothing is told twice");
}

#[test]
fn of_one_unit_the_first_outcome_in_a_minute_counts_for_guards() {
    let mut attribution = Attribution::new(100);
    expose(&mut attribution, 1, 7, ON, 0);
    for second in [0, 1, 59, 60, 61] {
        attribution.track(&[outcome("errors", 7, 1.0)], second * SECOND);
    }
    let counter = variant(&attribution.report(false).unwrap(), 1, "on").counters[0].clone();
    assert_eq!((counter.n, counter.k, counter.n_raw, counter.k_raw), (2, 2, 5, 5));
}

#[test]
fn values_add_up_within_their_clip_and_ratios_by_weight() {
    let mut attribution = Attribution::new(100);
    expose(&mut attribution, 1, 7, ON, 0);
    let paid = [outcome("paid", 7, 1e9), outcome("paid", 7, 5.0), outcome("request", 7, 1.0), outcome("request", 7, 0.0)];
    assert_eq!(attribution.track(&paid, 0).attributed, 4);
    let epochs = attribution.report(true).unwrap();
    let names: Vec<_> = epochs[0].metrics.iter().map(|metric| metric.name.as_str()).collect();
    let outcomes = &variant(&epochs, 1, "on").units[0].outcomes;
    let of = |name: &str| {
        let metric = names.iter().position(|known| *known == name).unwrap();
        outcomes.iter().find(|outcome| outcome.metric as usize == metric).map(|outcome| (outcome.x, outcome.y)).unwrap()
    };
    assert_eq!((of("revenue"), of("failed")), ((105.0, 0.0), (1.0, 4.0)));
    attribution.track(&[outcome("paid", 7, 1.0)], SECOND);
    assert_eq!(variant(&attribution.report(true).unwrap(), 1, "on").units[0].outcomes[0].x, 1.0, "what was told is not told again");
}

#[test]
fn a_kill_ends_attribution_and_so_do_seven_days() {
    let mut attribution = Attribution::new(100);
    expose(&mut attribution, 1, 7, ON, 0);
    expose(&mut attribution, 1, 8, ON, 0);
    expose(&mut attribution, 1, 7, NOT_MEASURED, SECOND);
    assert_eq!(attribution.track(&[outcome("errors", 7, 1.0)], 2 * SECOND).unattributed, 1);
    assert_eq!(attribution.track(&[outcome("errors", 8, 1.0)], ATTRIBUTION_US).attributed, 1);
    assert_eq!(attribution.track(&[outcome("errors", 8, 1.0)], ATTRIBUTION_US + 1).unattributed, 1);
    expose(&mut attribution, 1, 7, ON, 3 * SECOND);
    assert_eq!(variant(&attribution.report(false).unwrap(), 1, "on").exposures, 2, "it is the same exposure after the kill");
}

#[test]
fn an_outcome_before_the_exposure_or_after_the_lag_is_not_of_it() {
    let mut attribution = Attribution::new(100);
    expose(&mut attribution, 1, 7, ON, 10 * SECOND);
    let at = |at_us| Outcome { at_us: Some(at_us), ..outcome("errors", 7, 1.0) };
    assert_eq!(attribution.track(&[at(9 * SECOND)], 20 * SECOND).unattributed, 1);
    assert_eq!(attribution.track(&[at(3_610 * SECOND)], 3_700 * SECOND).attributed, 1);
    let metrics = |attribution: &mut Attribution| -> Vec<u32> {
        variant(&attribution.report(true).unwrap(), 1, "on").units[0].outcomes.iter().map(|outcome| outcome.metric).collect()
    };
    assert_eq!(metrics(&mut attribution), [0], "the metric with a lag of an hour has it no more");
    attribution.track(&[at(3_609 * SECOND)], 3_700 * SECOND);
    assert_eq!(metrics(&mut attribution), [0, 2]);
}

#[test]
fn an_idempotency_key_counts_once() {
    let mut attribution = Attribution::new(100);
    expose(&mut attribution, 1, 7, ON, 0);
    let keyed = Outcome { key: Some(1), ..outcome("errors", 7, 1.0) };
    let tracked = attribution.track(&[keyed.clone(), keyed.clone()], 0);
    assert_eq!(tracked, Tracked { attributed: 1, unattributed: 0, duplicates: 1 });
    assert_eq!(attribution.track(&[keyed], SECOND).duplicates, 1);
}

#[test]
fn a_million_units_stay_within_the_memory_of_the_limit() {
    let mut attribution = Attribution::new(10_000);
    let flag = flag();
    let mut reported = 0;
    for unit in 0..1_000_000 {
        attribution.expose(&Exposure::of(&flag, 1, unit, ON, unit as Micros));
        attribution.track(&[outcome("errors", unit, 1.0)], unit as Micros);
        if unit % 10_000 == 0 {
            let epochs = attribution.report(true).unwrap();
            reported += variant(&epochs, 1, "on").units.len();
        }
    }
    let size = attribution.size();
    assert!(size.units <= 10_000 && size.bytes < 10_000 * 1_000, "{size:?}");
    while let Some(epochs) = attribution.report(true) {
        reported += variant(&epochs, 1, "on").units.len();
    }
    assert_eq!((reported, attribution.size().dropped_records), (1_000_000, 0));
}

#[test]
fn records_that_nobody_takes_are_dropped_from_the_oldest_on_and_counted() {
    let mut attribution = Attribution::new(1_000);
    let flag = flag();
    (0..200_000).for_each(|unit| attribution.expose(&Exposure::of(&flag, 1, unit, ON, unit as Micros)));
    let size = attribution.size();
    assert!(size.pending == PENDING && size.dropped_records >= 99_000, "{size:?}");
}
