//! Differences between two sets, for people and for programs.

use super::super::arguments::OutputFormat;
use super::super::error::CommandError;
use super::super::output::{self, Output, Rows, Tone, printable};
use crate::definitions::diff::{Change, ChangeKind};

const FIELDS: [&str; 6] = ["change", "kind", "name", "was", "keys", "hint"];

/// Prints what differs between `from` and `to`.
pub(super) fn changes(output: &Output, from: &str, to: &str, changes: &[Change]) -> Result<(), CommandError> {
    match output.format() {
        OutputFormat::Table if changes.is_empty() => {
            eprintln!("{to} defines what {from} does");
            Ok(())
        }
        OutputFormat::Table => output::text_as_is(&text(changes, |text, tone| output.paint(text, tone))),
        _ => output.list(changes, &FIELDS, || Rows::new([]), ""),
    }
}

/// A line for each definition, and one for each key below it.
fn text(changes: &[Change], paint: impl Fn(&str, Tone) -> String) -> String {
    let mut lines = Vec::new();
    for change in changes {
        let (sign, tone) = match change.change {
            ChangeKind::Added => ("+", Tone::Good),
            ChangeKind::Removed => ("-", Tone::Bad),
            ChangeKind::Renamed | ChangeKind::Changed => ("~", Tone::Warning),
        };
        let was = change.was.as_ref().map(|was| format!("{was} → ")).unwrap_or_default();
        let what = format!("{sign} {} {was}{}", change.kind, change.name);
        lines.push(paint(printable(what.trim_end()).as_str(), tone));
        for key in &change.keys {
            let line = match (&key.old, &key.new) {
                (Some(old), Some(new)) => format!(
                    "    {}: {} → {}",
                    printable(&key.key),
                    paint(&printable(old), Tone::Bad),
                    paint(&printable(new), Tone::Good)
                ),
                (None, Some(new)) => format!("    {}: {}", printable(&key.key), paint(&printable(new), Tone::Good)),
                (Some(old), None) => format!("    {}: {}", printable(&key.key), paint(&printable(old), Tone::Bad)),
                (None, None) => continue,
            };
            lines.push(line);
        }
        lines.extend(change.hint.iter().map(|hint| format!("    hint: {}", printable(hint))));
    }
    let count = |kind| changes.iter().filter(|change| change.change == kind).count();
    let kinds = [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Renamed, ChangeKind::Changed];
    let counts: Vec<_> =
        kinds.into_iter().filter(|kind| count(*kind) > 0).map(|kind| format!("{} {kind}", count(kind))).collect();
    lines.push(counts.join(", "));
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::diff::KeyChange;

    #[test]
    fn each_definition_has_a_line_and_its_keys_below() {
        let key = |key: &str, old: Option<&str>, new: Option<&str>| KeyChange {
            key: key.into(),
            old: old.map(Into::into),
            new: new.map(Into::into),
        };
        let change = |change, name: &str, was: Option<&str>, keys| Change {
            change,
            kind: "schedule".into(),
            name: name.into(),
            was: was.map(Into::into),
            keys,
            hint: None,
        };
        let changes = [
            Change {
                hint: Some("add was".into()),
                ..change(ChangeKind::Added, "new", None, vec![key("dag", None, Some("\"d\""))])
            },
            change(ChangeKind::Removed, "old", None, vec![key("dag", Some("\"d\""), None)]),
            change(ChangeKind::Renamed, "b", Some("a"), Vec::new()),
            change(ChangeKind::Changed, "c", None, vec![key("cron", Some("\"@daily\""), Some("\"@hourly\"\u{1b}[2J"))]),
        ];
        let plain = text(&changes, |text, _| text.to_owned());
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let lines: Vec<_> = plain.lines().collect();
        assert_eq!(
            lines[..8],
            [
                "+ schedule new",
                "    dag: \"d\"",
                "    hint: add was",
                "- schedule old",
                "    dag: \"d\"",
                "~ schedule a → b",
                "~ schedule c",
                lines[7],
            ]
        );
        assert!(lines[7].starts_with("    cron: \"@daily\" → \"@hourly\""), "{plain}");
        assert_eq!(lines[8], "1 added, 1 removed, 1 renamed, 1 changed");
    }
}
