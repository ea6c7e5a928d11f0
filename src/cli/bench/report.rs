//! What a benchmark found: rows of raw figures, and the figures that have a bar, with the verdict.

use serde::Serialize;

use super::process::Cores;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::table::{Rows, alarming, plain};

#[derive(Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    /// How often and how long, in words.
    pub method: String,
    pub machine: Machine,
    pub rows: Vec<Row>,
    pub figures: Vec<Figure>,
}

/// What the figures depend on that is not in the program.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    /// Whether server and client have a core each.
    pub pinned: bool,
    /// Over the last minute; far above 1 says that neighbours took part.
    pub load_average: f64,
}

/// Raw figures of one thing that was measured, each with its unit in its name.
#[derive(Debug, Serialize)]
pub struct Row {
    pub what: String,
    pub values: Vec<(&'static str, f64)>,
}

#[derive(Debug, Serialize)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    /// The value may be as large as this.
    pub bar: Option<f64>,
    pub passes: Option<bool>,
}

impl Figure {
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str, bar: Option<f64>) -> Self {
        Self { what: what.into(), value, unit, bar, passes: bar.map(|bar| value <= bar) }
    }
}

impl Machine {
    pub fn look(cores: Option<Cores>) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            pinned: cores.is_some(),
            load_average: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }
}

impl Report {
    /// Prints it. With `check`, a missed bar is bad news for the shell too, and so is a report that no bar applies to.
    pub fn print(&self, out: &mut Out, check: bool) -> Outcome {
        out.answer(self, |out, report| {
            let Machine { cores, pinned, load_average } = report.machine;
            let pinned = if pinned { "server and client on a core each" } else { "not pinned" };
            out.line(format_args!("{}: {}; {cores} cores, {pinned}, load average {load_average}", report.benchmark, report.method))?;
            for rows in report.rows.chunk_by(Row::has_columns_of) {
                out.line("")?;
                print_rows(rows, out)?;
            }
            out.line("")?;
            let mut figures = Rows::under(["figure", "value", "unit", "bar", ""]);
            for Figure { what, value, unit, bar, passes } in &report.figures {
                let bar = bar.map(|bar| format!("<= {}", number(bar))).unwrap_or_default();
                let (verdict, style) = match passes {
                    Some(true) => ("pass", plain()),
                    Some(false) => ("MISS", alarming()),
                    None => ("", plain()),
                };
                figures.row([what.clone(), number(*value), (*unit).to_owned(), bar, verdict.to_owned()], style);
            }
            figures.print(out)
        })?;
        if check { self.verdict() } else { Ok(Exit::Done) }
    }

    fn verdict(&self) -> Outcome {
        let mut verdicts = self.figures.iter().filter_map(|figure| figure.passes).peekable();
        if verdicts.peek().is_none() {
            return Err(Failure::unable(
                "nothing that was measured has a bar, so there is nothing to --check; measure more of what the defaults do",
            ));
        }
        Ok(if verdicts.all(|passes| passes) { Exit::Done } else { Exit::Problem })
    }
}

impl Row {
    fn has_columns_of(&self, other: &Self) -> bool {
        let columns = |row: &Self| row.values.iter().map(|(column, _)| *column).collect::<Vec<_>>();
        columns(self) == columns(other)
    }
}

fn print_rows(rows: &[Row], out: &mut Out) -> Result<(), Failure> {
    let columns = rows.first().map(|row| row.values.iter().map(|(column, _)| *column)).into_iter().flatten();
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    out.line(columns.fold(format!("{:width$}", ""), |line, column| line + &format!("  {column:>12}")))?;
    for Row { what, values } in rows {
        out.line(values.iter().fold(format!("{what:width$}"), |line, (_, value)| line + &format!("  {:>12}", number(*value))))?;
    }
    Ok(())
}

/// Three digits that say something, and no more.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        _ if magnitude >= 100.0 || value == value.trunc() => thousands(value),
        _ if magnitude >= 10.0 => format!("{value:.1}"),
        _ if magnitude >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        let written: Vec<_> = [0.0, 0.0554, 0.193, 1.8, 15.04, 137.4, 55_000.0, 1_234_567.0, -1_500.0].map(number).to_vec();
        assert_eq!(written, ["0", "0.055", "0.19", "1.80", "15.0", "137", "55,000", "1,234,567", "-1,500"]);
    }

    #[test]
    fn a_figure_at_its_bar_passes() {
        assert_eq!(Figure::new("a", 1.8, "ratio", Some(1.8)).passes, Some(true));
        assert_eq!(Figure::new("a", 1.81, "ratio", Some(1.8)).passes, Some(false));
        assert_eq!(Figure::new("a", 1.81, "ratio", None).passes, None);
    }

    #[test]
    fn a_check_of_nothing_is_no_success() {
        let verdict = |bars: &[Option<f64>]| {
            let figures = bars.iter().map(|bar| Figure::new("a", 1.0, "ratio", *bar)).collect();
            Report { benchmark: "a", method: String::new(), machine: Machine::look(None), rows: Vec::new(), figures }.verdict()
        };
        assert_eq!(verdict(&[Some(1.0), None]), Ok(Exit::Done));
        assert_eq!(verdict(&[Some(1.0), Some(0.9)]), Ok(Exit::Problem));
        assert_eq!(verdict(&[None]).map_err(|failure| failure.exit), Err(Exit::Unable));
        assert_eq!(verdict(&[]).map_err(|failure| failure.exit), Err(Exit::Unable));
    }
}
