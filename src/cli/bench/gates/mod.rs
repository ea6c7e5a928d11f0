//! How often gates and triggers are wrong, and how fast they are right: rollouts that are played thousands of times with the functions that
//! judge real ones. No formula is here.

use anyhow::ensure;

use super::from_one;
use super::report::{Figure, Machine, Report, Row};

mod draw;
mod looks;
mod ratio;
mod seed_plan;
mod triggers;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rollouts that are played of each case (of the slowest ones a part)
    #[arg(long, default_value_t = 2000, value_parser = from_one())]
    runs: usize,

    /// The same seed plays the same rollouts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Below this no share of runs says anything about a bar of one in a hundred.
const LEAST_RUNS: usize = 100;

pub fn run(args: Args) -> anyhow::Result<Report> {
    let Args { runs, seed } = args;
    ensure!(runs >= LEAST_RUNS, "--runs {runs} is too few; expected {LEAST_RUNS} or more");
    let mut found = Found::default();
    looks::play(runs, seed, &mut found);
    triggers::play(runs, seed, &mut found);
    ratio::play(runs, seed, &mut found);
    seed_plan::play(runs, seed, &mut found);
    let Found { rows, figures } = found;
    Ok(Report {
        benchmark: "gates",
        method: format!("{runs} rollouts of each case, seed {seed}, played with the functions that judge real ones"),
        machine: Machine::look(None),
        rows,
        figures,
    })
}

/// What the parts add to the report.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    figures: Vec<Figure>,
}

impl Found {
    fn row(&mut self, what: impl Into<String>, values: Vec<(&'static str, f64)>) {
        self.rows.push(Row { what: what.into(), values });
    }

    fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str, bar: f64) {
        self.figures.push(Figure::new(what, value, unit, Some(bar)));
    }
}

/// The share of runs of which it is true.
fn share<T>(runs: &[T], of: impl Fn(&T) -> bool) -> f64 {
    runs.iter().filter(|run| of(run)).count() as f64 / runs.len().max(1) as f64
}

/// The value below which this share of the runs is; infinite when too many never came that far.
fn quantile(runs: &[Option<u64>], share: f64) -> f64 {
    let mut values: Vec<u64> = runs.iter().map(|run| run.unwrap_or(u64::MAX)).collect();
    values.sort_unstable();
    let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(place).filter(|value| **value < u64::MAX).map_or(f64::INFINITY, |value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_run_that_was_played() {
        let runs: Vec<Option<u64>> = (1..=10).map(Some).collect();
        assert_eq!((quantile(&runs, 0.5), quantile(&runs, 0.95)), (5.0, 10.0));
        assert_eq!(quantile(&[Some(3), None, None], 0.5), f64::INFINITY);
        assert_eq!(quantile(&[], 0.5), f64::INFINITY);
    }
}
