//! The note that every DAG run of ours carries: who asked for it, and why.
//!
//! It is also how a DAG run is told from one with the same id that another flowkeeper made: the store
//! id in it is compared. People may add to a note in Airflow's pages without harm.

use jiff::Timestamp;

use super::schedule::TriggerKind;

/// What Airflow keeps of a note, in characters.
pub const MAX_CHARS: usize = 1000;

/// What stands before the store id.
const STORE: &str = "flowkeeper store ";

/// What a note says.
#[derive(Debug, Clone, Copy)]
pub struct NoteFacts<'a> {
    /// The store that the run is recorded in.
    pub store_id: &'a str,
    /// The schedule.
    pub schedule: &'a str,
    /// What made it due.
    pub trigger: TriggerKind,
    /// When it came due.
    pub due_at: Timestamp,
    /// What happened, in words: the znode's path and event, who triggered it by hand.
    pub cause: Option<&'a str>,
    /// Where the run can be read.
    pub link: Option<&'a str>,
}

/// Writes the note. The store id comes first, so that cutting a long cause never loses it.
pub fn compose(facts: &NoteFacts<'_>) -> String {
    let NoteFacts { store_id, schedule, trigger, due_at, cause, link } = facts;
    let head =
        format!("{STORE}{store_id}\nschedule {schedule}, due {due_at}, cause: {trigger}", trigger = trigger.as_str());
    let tail = link.map(|link| format!("\n{link}")).unwrap_or_default();
    let room = MAX_CHARS.saturating_sub(head.chars().count() + tail.chars().count());
    let cause = cause.map(|cause| shorten(&format!(" ({cause})"), room)).unwrap_or_default();
    let note = format!("{head}{cause}{tail}");
    shorten(&note, MAX_CHARS)
}

/// Whether a DAG run with this note is recorded in this store: one of its lines begins as
/// [`compose`] begins it.
///
/// The one answer to that question: before a 409 is believed, before a DAG run moves a row, and before
/// one that a restored ledger has no row for is entered.
pub fn is_ours(note: Option<&str>, store_id: &str) -> bool {
    let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-');
    let names_us = |line: &str| line.trim_start().strip_prefix(STORE)?.strip_prefix(store_id).map(is_whole);
    !store_id.is_empty() && note.is_some_and(|note| note.lines().any(|line| names_us(line) == Some(true)))
}

fn shorten(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    if max_chars > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts<'a>(cause: Option<&'a str>, link: Option<&'a str>) -> NoteFacts<'a> {
        NoteFacts {
            store_id: "0b5c",
            schedule: "nightly-load",
            trigger: TriggerKind::Cron,
            due_at: "2026-11-22T02:30:00Z".parse().unwrap(),
            cause,
            link,
        }
    }

    #[test]
    fn a_note_says_who_and_why() {
        assert_eq!(
            compose(&facts(Some("by ann"), Some("http://h/runs/7"))),
            "flowkeeper store 0b5c\nschedule nightly-load, due 2026-11-22T02:30:00Z, cause: cron (by ann)\nhttp://h/runs/7"
        );
    }

    #[test]
    fn ours_is_the_whole_store_id() {
        let cases = [
            (Some("flowkeeper store 0b5c\nschedule x"), true),
            (Some("edited by ann\nflowkeeper store 0b5c"), true),
            (Some("flowkeeper store 0b5c7\n"), false),
            (Some("flowkeeper store 10b5c\n"), false),
            (Some("flowkeeper store 0b5c-1"), false),
            (Some("flowkeeper store 0b5c"), true),
            // A word about us, of a person or out of a znode's path, is not ours.
            (Some("flowkeeper store ffff\ninstead of the run of 0b5c"), false),
            (Some("flowkeeper store ffff\nschedule x, cause: znode (/flowkeeper store 0b5c)"), false),
            (Some(""), false),
            (None, false),
        ];
        for (note, ours) in cases {
            assert_eq!(is_ours(note, "0b5c"), ours, "{note:?}");
        }
        assert!(!is_ours(Some("anything"), ""));
    }

    proptest! {
        #[test]
        fn a_note_always_fits_and_is_always_ours(cause in ".{0,3000}", link in ".{0,900}") {
            let note = compose(&facts(Some(&cause), Some(&link)));
            prop_assert!(note.chars().count() <= MAX_CHARS);
            prop_assert!(is_ours(Some(&note), "0b5c"));
        }
    }
}
