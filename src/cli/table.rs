//! Columns for people: no frames, so that a line can be copied, cut and grepped.

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::{OwoColorize as _, Style};

use super::exit::Failure;
use super::output::Out;

/// Rows under a heading, each with a colour of its own.
pub struct Rows {
    table: Table,
    styles: Vec<Style>,
}

impl Rows {
    pub fn under<const N: usize>(heading: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heading);
        Self { table, styles: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N], style: Style) {
        // A line break in a reason or a message would tear the columns apart.
        self.table.add_row(cells.map(|cell| cell.replace(['\n', '\r'], " ")));
        self.styles.push(style);
    }

    /// The styles go round whole lines and not into cells: the table measures a cell with its escape codes.
    pub fn print(mut self, out: &mut Out) -> Result<(), Failure> {
        let columns = self.table.column_count();
        for (index, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((0, if index + 1 == columns { 0 } else { 2 }));
        }
        let styles = std::iter::once(Style::new().bold()).chain(self.styles);
        for (line, style) in self.table.lines().zip(styles) {
            out.line(line.trim_end().style(style))?;
        }
        Ok(())
    }
}

pub fn plain() -> Style {
    Style::new()
}

pub fn alarming() -> Style {
    Style::new().red()
}

pub fn doubtful() -> Style {
    Style::new().yellow()
}
