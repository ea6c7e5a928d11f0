//! The statistics of gates and triggers give the numbers of `tests/data/statistics/statistics.json`, and keep their laws.

mod laws;
mod vectors;
