//! Standard output: tables that fit the terminal, JSON and CSV.
//!
//! The only place that writes to standard output. A reader that goes away early (`| head`) ends the
//! command quietly instead of with a panic.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, TableStyle, presets};
use serde::Serialize;
use serde_json::Value;

use super::arguments::{ColorChoice, OutputFormat};
use super::error::CommandError;

/// The narrowest table that is still worth arranging, in characters.
const MIN_WIDTH: u16 = 40;

/// The narrowest that text is broken into, in characters.
const LEAST_WRAP: usize = 14;

/// Characters between two columns.
const GAP: u16 = 2;

/// How answers are printed: the format, and what the terminal can show.
#[derive(Debug)]
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
    /// Whole where there is room for all columns, left out where there is not.
    Optional,
    /// As optional, and aligned to the right.
    OptionalNumber,
}

/// The rows of a table below their headings.
#[derive(Debug)]
pub(super) struct Rows {
    headings: Vec<(Cow<'static, str>, Fit)>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    pub(super) fn new(headings: impl Into<Vec<(&'static str, Fit)>>) -> Self {
        Self::with_columns(headings.into().into_iter().map(|(heading, fit)| (Cow::from(heading), fit)))
    }

    /// With headings that are found out only while it runs.
    pub(super) fn with_columns(headings: impl IntoIterator<Item = (Cow<'static, str>, Fit)>) -> Self {
        Self { headings: headings.into_iter().collect(), rows: Vec::new() }
    }

    pub(super) fn push(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// How many characters a column takes.
    fn needed(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0);
        let (heading, fit) = &self.headings[column];
        let natural = longest.max(heading.chars().count());
        (if *fit == Fit::Wrap { natural.min(LEAST_WRAP) } else { natural }) + usize::from(GAP)
    }

    /// The columns that are shown in `width`: optional ones go, from the right, until the rest fits;
    /// if that is not enough, those whose text would be broken into slivers.
    fn fitting(&self, width: Option<u16>) -> Vec<usize> {
        let mut kept: Vec<usize> = (0..self.headings.len()).collect();
        let Some(width) = width.map(usize::from) else { return kept };
        for droppable in [&[Fit::Optional, Fit::OptionalNumber][..], &[Fit::Wrap]] {
            while kept.len() > 1 && kept.iter().map(|&column| self.needed(column)).sum::<usize>() > width {
                // The first column says which row it is.
                let last = kept.iter().rposition(|&column| column > 0 && droppable.contains(&self.headings[column].1));
                let Some(last) = last else { break };
                kept.remove(last);
            }
        }
        kept
    }
}

impl Output {
    /// Reads what the terminal and the environment say; `NO_COLOR` is honoured (<https://no-color.org>).
    pub(super) fn new(format: OutputFormat, color: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let color = Self::colors(color, terminal);
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = columns.or_else(|| if terminal { Table::new().width() } else { None });
        Self { format, color, width: width.map(|width: u16| width.max(MIN_WIDTH)) }
    }

    /// Whether a stream is coloured.
    pub(super) fn colors(choice: ColorChoice, terminal: bool) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// The format that was asked for.
    pub(super) fn format(&self) -> OutputFormat {
        self.format
    }

    /// Whether colours are used.
    pub(super) fn uses_color(&self) -> bool {
        self.color
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
            OutputFormat::Json => json(&items),
            OutputFormat::Csv => csv(items, fields),
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
            OutputFormat::Json => json(item),
            OutputFormat::Csv => csv(std::slice::from_ref(item), fields),
            OutputFormat::Table => self.properties(lines()),
            OutputFormat::Github => Err(github_is_for_check()),
        }
    }

    /// Whether all columns of a table have room beside each other.
    pub(super) fn has_room_for(&self, rows: &Rows) -> bool {
        let needed: usize = (0..rows.headings.len()).map(|column| rows.needed(column)).sum();
        self.width.is_none_or(|width| needed <= usize::from(width))
    }

    /// Prints a table; on a narrow terminal without its optional columns.
    pub(super) fn table(&self, rows: &Rows) -> Result<(), CommandError> {
        let kept = rows.fitting(self.width);
        let mut table = self.new_table();
        table.set_header(kept.iter().map(|&column| heading(&rows.headings[column].0)));
        for row in &rows.rows {
            table.add_row(kept.iter().filter_map(|&column| row.get(column)).map(shown_cell));
        }
        for (index, &kept) in kept.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                let fit = rows.headings[kept].1;
                column.set_padding((0, GAP));
                if fit != Fit::Wrap {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
                if matches!(fit, Fit::Number | Fit::OptionalNumber) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        print_table(&table)?;
        let left_out: Vec<&str> = (0..rows.headings.len())
            .filter(|column| !kept.contains(column))
            .map(|column| &*rows.headings[column].0)
            .collect();
        if !left_out.is_empty() {
            eprintln!("left out for want of room: {}; `-o json` and `-o csv` have everything", left_out.join(", "));
        }
        Ok(())
    }

    /// Prints names and values, one pair a line; pairs with an empty value are left out.
    fn properties(&self, lines: Vec<(&'static str, Cell)>) -> Result<(), CommandError> {
        let mut table = self.new_table();
        for (name, value) in lines {
            if !value.text.is_empty() {
                table.add_row([heading(name), shown_cell(&value)]);
            }
        }
        if let Some(names) = table.column_mut(0) {
            names.set_padding((0, GAP)).set_constraint(ColumnConstraint::ContentWidth);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_padding((0, 0));
        }
        print_table(&table)
    }

    /// Prints a paragraph, broken into lines where the terminal asks for it.
    pub(super) fn paragraph(&self, text: &str) -> Result<(), CommandError> {
        let mut table = self.new_table();
        table.add_row([text]);
        if let Some(column) = table.column_mut(0) {
            column.set_padding((0, 0));
        }
        print_table(&table)
    }

    /// Colours text, where colours are used.
    pub(super) fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Active => 36,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Muted => 90,
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
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
}

fn heading(text: &str) -> comfy_table::Cell {
    comfy_table::Cell::new(text).add_attribute(Attribute::Bold)
}

fn shown_cell(cell: &Cell) -> comfy_table::Cell {
    let shown = comfy_table::Cell::new(printable(&cell.text));
    match cell.tone.color() {
        Some(color) => shown.fg(color),
        None => shown,
    }
}

fn print_table(table: &Table) -> Result<(), CommandError> {
    for text in table.lines() {
        line(text.trim_end())?;
    }
    Ok(())
}

/// Prints text as it is, and a line feed.
pub(super) fn line(text: &str) -> Result<(), CommandError> {
    text_as_is(text)?;
    text_as_is("\n")
}

/// Prints one JSON document.
pub(super) fn json(value: &impl Serialize) -> Result<(), CommandError> {
    line(&serde_json::to_string_pretty(value).map_err(|error| json_error(&error))?)
}

/// Prints one JSON document in a line, for output that never ends.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), CommandError> {
    line(&serde_json::to_string(value).map_err(|error| json_error(&error))?)
}

fn json_error(error: &serde_json::Error) -> CommandError {
    CommandError::failed(format!("failed to write the answer as JSON: {error}"))
}

/// Prints CSV with a header; objects and arrays inside an item as JSON text.
fn csv<T: Serialize>(items: &[T], fields: &[&str]) -> Result<(), CommandError> {
    let mut text = csv_record(fields)?;
    for item in items {
        text.push_str(&csv_record(&csv_fields(item, fields)?)?);
    }
    text_as_is(&text)
}

/// Prints the header of CSV, for output that never ends.
pub(super) fn csv_header(fields: &[&str]) -> Result<(), CommandError> {
    text_as_is(&csv_record(fields)?)
}

/// Prints one row of CSV, for output that never ends.
pub(super) fn csv_line(item: &impl Serialize, fields: &[&str]) -> Result<(), CommandError> {
    text_as_is(&csv_record(&csv_fields(item, fields)?)?)
}

fn csv_fields(item: &impl Serialize, fields: &[&str]) -> Result<Vec<String>, CommandError> {
    let item = serde_json::to_value(item).map_err(|error| csv_error(&error))?;
    Ok(fields
        .iter()
        .map(|field| match field.split('.').try_fold(&item, |value, key| value.get(key)) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        })
        .collect())
}

fn csv_record(fields: &[impl AsRef<[u8]>]) -> Result<String, CommandError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields).map_err(|error| csv_error(&error))?;
    let bytes = writer.into_inner().map_err(|error| csv_error(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn csv_error(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::failed(format!("failed to write the answer as CSV: {error}"))
}

/// `-o github` where it makes no sense.
pub(super) fn github_is_for_check() -> CommandError {
    CommandError::usage("failed to print the answer: `-o github` marks faults of `check`, nothing else")
        .hint("use `-o table`, `-o json` or `-o csv`")
}

/// Prints text that brings its own line feeds.
pub(super) fn text_as_is(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CommandError::reader_gone()),
        Err(error) => Err(CommandError::failed(format!("failed to write to standard output: {error}"))),
    }
}

/// Text from outside (a znode's path, an answer of Airflow's) without what would steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_columns_go_before_anything_wraps() {
        let mut rows =
            Rows::new([("ID", Fit::Number), ("DAG", Fit::Optional), ("OWNER", Fit::Optional), ("REASON", Fit::Wrap)]);
        rows.push(["1", "nightly_load", "platform", "an earlier run is open"].map(Cell::from));
        let cases = [
            (None, vec![0, 1, 2, 3]),
            (Some(80), vec![0, 1, 2, 3]),
            (Some(40), vec![0, 1, 3]),
            (Some(20), vec![0, 3]),
            (Some(8), vec![0]),
        ];
        for (width, kept) in cases {
            assert_eq!(rows.fitting(width), kept, "{width:?}");
        }
    }

    #[test]
    fn text_from_outside_does_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}
