//! Faults as text: for people, for programs, and for annotations on GitHub.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::fault::{Fault, Severity};
use super::text::plural;

/// Whether text has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// None.
    Off,
    /// ANSI escapes, for a terminal.
    On,
}

/// So many faults a person is shown: who has made one mistake a thousand times finds the first hundred at once.
const SHOWN: usize = 100;

/// Faults as a person reads them, the first hundred, with a count of all at the end.
///
/// ```text
/// error: unknown key `lisen`
///   --> flowkeeper.toml:2:1 (server.lisen)
///    |
///  2 | lisen = "127.0.0.1:8787"
///    | ^^^^^
/// hint: did you mean `listen`?
/// ```
pub fn human(faults: &[Fault], color: Color) -> String {
    let mut text = String::new();
    for fault in faults.iter().take(SHOWN) {
        one(&mut text, fault, color);
        text.push('\n');
    }
    let count = |severity| faults.iter().filter(|fault| fault.severity == severity).count();
    let counts: Vec<String> = [(count(Severity::Error), "error"), (count(Severity::Warning), "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}{}", plural(count)))
        .collect();
    text.push_str(&counts.join(", "));
    if faults.len() > SHOWN {
        let _ = write!(text, "; the first {SHOWN} are shown, and `-o json` has all of them");
    }
    if !counts.is_empty() {
        text.push('\n');
    }
    text
}

fn one(text: &mut String, fault: &Fault, color: Color) {
    let paint = |code: &str, text: &str| match color {
        Color::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        Color::Off => text.to_owned(),
    };
    let (word, code) = match fault.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let place = match (fault.line, fault.column) {
        (0, _) => fault.file.clone(),
        (line, column) => format!("{}:{line}:{column}", fault.file),
    };
    let key = if fault.key.is_empty() { String::new() } else { format!(" ({})", fault.key) };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: {}", paint(code, word), printable(&fault.message));
    let width = fault.line.to_string().len().max(2);
    let _ = writeln!(text, "{:width$}{} {}{}", "", paint("34", "-->"), printable(&place), printable(&key));
    if let Some(excerpt) = &fault.excerpt {
        let bar = paint("34", "|");
        // A tab is one character and many columns wide.
        let line: String = printable(&excerpt.text.replace('\t', " "));
        let before = " ".repeat(fault.column.saturating_sub(1));
        let room = line.chars().count().saturating_sub(fault.column.saturating_sub(1)).max(1);
        let carets = paint(code, &"^".repeat(excerpt.width.min(room)));
        let _ = writeln!(text, "{:width$} {bar}", "");
        let _ = writeln!(text, "{:>width$} {bar} {line}", fault.line);
        let _ = writeln!(text, "{:width$} {bar} {before}{carets}", "");
    }
    if let Some(hint) = &fault.hint {
        let _ = writeln!(text, "{}: {}", paint("36", "hint"), printable(hint));
    }
}

/// Control characters would act on the terminal; each becomes one visible character.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `{"ok": …, "faults": [{file, line, column, key, message, hint, severity}]}`.
pub fn json(faults: &[Fault]) -> Value {
    let ok = faults.iter().all(|fault| fault.severity == Severity::Warning);
    json!({ "ok": ok, "faults": faults })
}

/// Workflow commands, a line a fault, which GitHub shows beside the lines of a change.
///
/// Escapes as GitHub's own toolkit does: `%`, carriage return and line feed everywhere, and `:` and
/// `,` in properties.
pub fn github(faults: &[Fault]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut text = String::new();
    for fault in faults {
        let command = match fault.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = match fault.line {
            0 => String::new(),
            line => format!(",line={line},col={}", fault.column),
        };
        let title = if fault.key.is_empty() { String::new() } else { format!(",title={}", property(&fault.key)) };
        let hint = fault.hint.as_ref().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
        let message = data(&format!("{}{hint}", fault.message));
        let _ = writeln!(text, "::{command} file={}{place}{title}::{message}", property(&fault.file));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fault::Excerpt;

    fn fault() -> Fault {
        Fault {
            file: "a,b:c.toml".into(),
            line: 12,
            column: 5,
            key: "server.listen".into(),
            message: "100% wrong\nreally".into(),
            hint: Some("do: this, and that".into()),
            severity: Severity::Error,
            excerpt: Some(Excerpt { text: "\tab\u{1b}cd".into(), width: 40 }),
        }
    }

    #[test]
    fn of_many_faults_the_first_are_shown_and_all_are_counted() {
        let many = human(&vec![fault(); 250], Color::Off);
        assert_eq!(many.matches("error: ").count(), SHOWN);
        assert!(many.ends_with("250 errors; the first 100 are shown, and `-o json` has all of them\n"), "{many}");
        assert!(human(&vec![fault(); SHOWN], Color::Off).ends_with("100 errors\n"));
    }

    #[test]
    fn annotations_are_escaped() {
        assert_eq!(
            github(&[fault()]),
            "::error file=a%2Cb%3Ac.toml,line=12,col=5,title=server.listen::100%25 wrong%0Areally%0Ahint: do: this, and that\n"
        );
        let without_place =
            Fault { line: 0, column: 0, key: String::new(), hint: None, severity: Severity::Warning, ..fault() };
        assert_eq!(github(&[without_place]), "::warning file=a%2Cb%3Ac.toml::100%25 wrong%0Areally\n");
    }

    #[test]
    fn carets_stay_within_the_line_and_control_characters_off_the_terminal() {
        let text = human(&[fault()], Color::Off);
        assert!(text.contains("12 |  ab\u{fffd}cd\n   |     ^^\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(human(&[fault()], Color::On).contains("\u{1b}[1;31merror\u{1b}[0m: "));
    }

    #[test]
    fn json_has_the_fields_of_the_contract() {
        let json = json(&[fault()]);
        assert_eq!(json["ok"], false);
        let keys: Vec<&String> = json["faults"][0].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["file", "line", "column", "key", "message", "hint", "severity"]);
        assert_eq!(super::json(&[])["ok"], true);
    }
}
