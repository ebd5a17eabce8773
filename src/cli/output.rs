//! Standard output: tables that fit the terminal, JSON and CSV.
//!
//! The only place that writes to standard output. A reader that goes away early (`| head`) ends the
//! command quietly instead of with a panic.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, TableStyle, presets};
use serde::Serialize;
use serde_json::Value;

use super::arguments::{ColorChoice, OutputFormat};
use super::error::CommandError;

/// The narrowest table that is still worth arranging, in characters.
const MIN_WIDTH: u16 = 40;

/// How answers are printed: the format, and what the terminal can show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: OutputFormat,
    color: bool,
    /// Characters in a line; `None` is without limit, for pipes and files.
    width: Option<u16>,
}

/// What a cell's colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Under way.
    Active,
    /// Somebody may want to look.
    Warning,
    /// Somebody must look.
    Bad,
    /// Background.
    Muted,
}

impl Tone {
    fn color(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Active => Some(Color::Cyan),
            Self::Warning => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
            Self::Muted => Some(Color::DarkGrey),
        }
    }
}

/// A cell of a table.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// How a column behaves when the table does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Never broken: ids, states, times.
    Whole,
    /// As whole, and aligned to the right: numbers.
    Number,
    /// Broken into lines where it must.
    Wrap,
}

/// The rows of a table below their headings.
#[derive(Debug)]
pub(super) struct Rows {
    headings: Vec<(&'static str, Fit)>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    pub(super) fn new(headings: impl Into<Vec<(&'static str, Fit)>>) -> Self {
        Self { headings: headings.into(), rows: Vec::new() }
    }

    pub(super) fn push(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }
}

impl Output {
    /// Reads what the terminal and the environment say; `NO_COLOR` is honoured (<https://no-color.org>).
    pub(super) fn new(format: OutputFormat, color: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !no_color,
        };
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = columns.or_else(|| if terminal { Table::new().width() } else { None });
        Self { format, color, width: width.map(|width: u16| width.max(MIN_WIDTH)) }
    }

    /// The format that was asked for.
    pub(super) fn format(&self) -> OutputFormat {
        self.format
    }

    /// Characters in a line of the terminal; `None` where there is no limit.
    pub(super) fn width(&self) -> Option<u16> {
        self.width
    }

    /// Prints text as it is, and a line feed.
    pub(super) fn line(&self, text: &str) -> Result<(), CommandError> {
        write_out(text)?;
        write_out("\n")
    }

    /// Prints one JSON document.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CommandError::failed(format!("failed to write the answer as JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints one JSON document in a line, for output that never ends.
    pub(super) fn json_line(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CommandError::failed(format!("failed to write the answer as JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints items in the format asked for: `rows` as the table, `fields` (dotted paths into the
    /// item's JSON) as the columns of CSV.
    pub(super) fn list<T: Serialize>(
        &self,
        items: &[T],
        fields: &[&str],
        rows: impl FnOnce() -> Rows,
        nothing: &str,
    ) -> Result<(), CommandError> {
        match self.format {
            OutputFormat::Json => self.json(&items),
            OutputFormat::Csv => self.csv(items, fields),
            OutputFormat::Table if items.is_empty() => {
                // Not part of the answer: an empty answer stays empty in a pipe.
                eprintln!("{nothing}");
                Ok(())
            }
            OutputFormat::Table => self.table(&rows()),
            OutputFormat::Github => Err(github_is_for_check()),
        }
    }

    /// Prints one item: as JSON, as CSV with one row, or as `lines` of a name and a value.
    pub(super) fn one<T: Serialize>(
        &self,
        item: &T,
        fields: &[&str],
        lines: impl FnOnce() -> Vec<(&'static str, Cell)>,
    ) -> Result<(), CommandError> {
        match self.format {
            OutputFormat::Json => self.json(item),
            OutputFormat::Csv => self.csv(std::slice::from_ref(item), fields),
            OutputFormat::Table => self.properties(lines()),
            OutputFormat::Github => Err(github_is_for_check()),
        }
    }

    /// Prints a table.
    pub(super) fn table(&self, rows: &Rows) -> Result<(), CommandError> {
        let mut table = self.new_table();
        table.set_header(rows.headings.iter().map(|(heading, _)| self.heading(heading)));
        for row in &rows.rows {
            table.add_row(row.iter().map(|cell| self.cell(cell)));
        }
        for (index, (_, fit)) in rows.headings.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if *fit != Fit::Wrap {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
                if *fit == Fit::Number {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        self.print_table(&table)
    }

    /// Prints names and values, one pair a line; pairs with an empty value are left out.
    fn properties(&self, lines: Vec<(&'static str, Cell)>) -> Result<(), CommandError> {
        let mut table = self.new_table();
        for (name, value) in lines {
            if !value.text.is_empty() {
                table.add_row([self.heading(name), self.cell(&value)]);
            }
        }
        if let Some(names) = table.column_mut(0) {
            names.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_padding((0, 0));
        }
        self.print_table(&table)
    }

    fn new_table(&self) -> Table {
        let mut table = Table::new();
        let style: TableStyle = presets::NOTHING;
        table.load_style(style).force_no_tty();
        if self.color {
            table.enforce_styling();
        }
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table
    }

    fn print_table(&self, table: &Table) -> Result<(), CommandError> {
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    fn heading(&self, text: &str) -> comfy_table::Cell {
        comfy_table::Cell::new(text).add_attribute(Attribute::Bold)
    }

    fn cell(&self, cell: &Cell) -> comfy_table::Cell {
        let shown = comfy_table::Cell::new(printable(&cell.text));
        match cell.tone.color() {
            Some(color) => shown.fg(color),
            None => shown,
        }
    }

    /// Prints CSV: objects and arrays inside an item as JSON text.
    fn csv<T: Serialize>(&self, items: &[T], fields: &[&str]) -> Result<(), CommandError> {
        let failed =
            |error: &dyn std::fmt::Display| CommandError::failed(format!("failed to write the answer as CSV: {error}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(fields).map_err(|error| failed(&error))?;
        for item in items {
            let item = serde_json::to_value(item).map_err(|error| failed(&error))?;
            let record =
                fields.iter().map(|field| match field.split('.').try_fold(&item, |value, key| value.get(key)) {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(value) => value.to_string(),
                });
            writer.write_record(record).map_err(|error| failed(&error))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(&error))?;
        write_out(&String::from_utf8_lossy(&bytes))
    }
}

/// `-o github` where it makes no sense.
pub(super) fn github_is_for_check() -> CommandError {
    CommandError::usage("failed to print the answer: `-o github` marks faults of `check`, nothing else")
        .hint("use `-o table`, `-o json` or `-o csv`")
}

fn write_out(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CommandError::reader_gone()),
        Err(error) => Err(CommandError::failed(format!("failed to write to standard output: {error}"))),
    }
}

/// Text from outside (a znode's path, an answer of Airflow's) without what would steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_does_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}
