//! What differs between two sets, told by what is defined rather than by line: which schedules were
//! added, removed, renamed or changed, and in which keys. Pure.
//!
//! What is written is compared, not what it means: a value of `[defaults]` that changes is told once, and
//! not for every schedule that it holds for. Where a definition stands, and in what order, is nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::Document;
use crate::domain::edit::{Fates, NameAndWas};
use crate::domain::schedule::ScheduleName;

/// A definition that is not in both sets alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What became of it.
    pub change: ChangeKind,
    /// The section: `schedule`, `airflow`, …
    pub kind: String,
    /// Its name; of `defaults`, the document, and nothing for the first one.
    pub name: String,
    /// The name that it had before.
    pub was: Option<String>,
    /// The keys that differ.
    pub keys: Vec<KeyChange>,
    /// What its author may have meant instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What became of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another name, and maybe other keys.
    Renamed,
    /// It has other keys.
    Changed,
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The dotted key.
    pub key: String,
    /// What stood there, as TOML.
    pub old: Option<String>,
    /// What stands there now.
    pub new: Option<String>,
}

/// A document that is not TOML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {name} as TOML: {reason}")]
pub struct NotToml {
    /// The document.
    pub name: String,
    /// What the reader says.
    pub reason: String,
}

/// The section whose names are more than names: what a schedule has done so far belongs to its name.
const SCHEDULE: &str = "schedule";

/// Section and name.
type Place = (String, String);

/// Dotted keys, and their values as TOML.
type Keys = BTreeMap<String, String>;

/// What differs between two sets, sections in the order of the alphabet.
pub fn diff(old: &[Document], new: &[Document]) -> Result<Vec<Change>, NotToml> {
    let (mut old, mut new) = (defined(old)?, defined(new)?);
    let mut changes = Vec::new();
    for (place, keys) in renames(&old, &new) {
        let (Some(before), Some(after)) = (old.remove(&place), new.remove(&keys)) else { continue };
        let ((kind, name), (_, was)) = (keys, place);
        // That it was renamed says it all.
        let keys = compare(&before, &after).into_iter().filter(|key| !["name", "was"].contains(&&*key.key)).collect();
        changes.push(Change { change: ChangeKind::Renamed, kind, name, was: Some(was), keys, hint: None });
    }
    for ((kind, name), before) in &old {
        let (kind, name) = (kind.clone(), name.clone());
        match new.remove(&(kind.clone(), name.clone())) {
            None => {
                let keys = compare(before, &Keys::new());
                changes.push(Change { change: ChangeKind::Removed, kind, name, was: None, keys, hint: None });
            }
            Some(after) if after == *before => {}
            Some(after) => {
                let keys = compare(before, &after);
                changes.push(Change { change: ChangeKind::Changed, kind, name, was: None, keys, hint: None });
            }
        }
    }
    for ((kind, name), after) in new {
        let keys = compare(&Keys::new(), &after);
        changes.push(Change { change: ChangeKind::Added, kind, name, was: None, keys, hint: None });
    }
    add_hints(&mut changes);
    changes.sort_by(|one, other| (&one.kind, one.change, &one.name).cmp(&(&other.kind, other.change, &other.name)));
    Ok(changes)
}

/// Which schedule has become which, as members will have it: by `was` in the new set, or since the old set
/// says that it was this one.
fn renames(old: &BTreeMap<Place, Keys>, new: &BTreeMap<Place, Keys>) -> Vec<(Place, Place)> {
    let schedules = |set: &BTreeMap<Place, Keys>| -> Vec<NameAndWas> {
        let schedule = |(place, keys): (&Place, &Keys)| {
            // One name, or a list of them.
            let was =
                keys.get("was").map(String::as_str).unwrap_or_default().split(['"', '\'', '[', ']', ',', ' ', '\n']);
            let was = was.filter_map(ScheduleName::new).collect();
            (place.0 == SCHEDULE).then(|| Some((ScheduleName::new(&place.1)?, was)))?
        };
        set.iter().filter_map(schedule).collect()
    };
    let fates = Fates::between_names(&schedules(old), &schedules(new));
    let place = |name: &ScheduleName| (SCHEDULE.to_owned(), name.to_string());
    fates.moves().map(|(from, to)| (place(from), place(to))).collect()
}

/// What to write where a schedule that is gone and one that is new are the same but for their names, since
/// members end the one and begin the other from nothing.
fn add_hints(changes: &mut [Change]) {
    let nameless = |change: &Change, side: fn(&KeyChange) -> &Option<String>| -> Keys {
        let keys = change.keys.iter().filter(|key| !["name", "was"].contains(&&*key.key));
        keys.filter_map(|key| Some((key.key.clone(), side(key).clone()?))).collect()
    };
    let mut gone: BTreeMap<Keys, Vec<String>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.kind == SCHEDULE && change.change == ChangeKind::Removed) {
        gone.entry(nameless(change, |key| &key.old)).or_default().push(change.name.clone());
    }
    for change in changes.iter_mut().filter(|change| change.kind == SCHEDULE && change.change == ChangeKind::Added) {
        if let Some([name]) = gone.get(&nameless(change, |key| &key.new)).map(Vec::as_slice) {
            change.hint = Some(format!(
                "if this is {name} under another name, add was = \"{name}\": by itself it begins from nothing"
            ));
        }
    }
}

fn compare(old: &Keys, new: &Keys) -> Vec<KeyChange> {
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .map(|key| KeyChange { key: key.clone(), old: old.get(key).cloned(), new: new.get(key).cloned() })
        .filter(|change| change.old != change.new)
        .collect()
}

/// Everything that a set defines.
fn defined(documents: &[Document]) -> Result<BTreeMap<Place, Keys>, NotToml> {
    let mut defined = BTreeMap::new();
    for (index, document) in documents.iter().enumerate() {
        let table: Table = toml::from_str(&document.text)
            .map_err(|error| NotToml { name: document.name.clone(), reason: error.message().to_owned() })?;
        let own_name = if index == 0 { String::new() } else { document.name.clone() };
        for (section, value) in table {
            match value {
                Value::Array(items) if items.iter().all(Value::is_table) && section != "include" => {
                    for item in items.iter().filter_map(Value::as_table) {
                        let name = item.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                        defined.insert((section.clone(), name), flat(item));
                    }
                }
                Value::Table(table) if section != "defaults" && table.values().all(Value::is_table) => {
                    for (name, value) in &table {
                        let keys = value.as_table().map(flat).unwrap_or_default();
                        defined.insert((section.clone(), name.clone()), keys);
                    }
                }
                Value::Table(table) => {
                    defined.insert((section, own_name.clone()), flat(&table));
                }
                // Which files there are is told by what is in them.
                _ => {}
            }
        }
    }
    Ok(defined)
}

/// Dotted keys of a table and the tables in it.
fn flat(table: &Table) -> Keys {
    fn walk(table: &Table, prefix: &str, keys: &mut Keys) {
        for (key, value) in table {
            let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(below) if !below.is_empty() => walk(below, &dotted, keys),
                value => drop(keys.insert(dotted, value.to_string())),
            }
        }
    }
    let mut keys = Keys::new();
    walk(table, "", &mut keys);
    keys
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
            Self::Changed => "changed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIRFLOW: &str = "[airflow.main]\nurl = \"http://a\"\n";
    const A: &str = "[[schedule]]\nname = \"a\"\ncron = \"@daily\"\ndag = \"d\"\n";

    /// The changes in a line each: `changed schedule a: dag "d" → "e"`.
    fn told(old: &[&str], new: &[&str]) -> Vec<String> {
        let set = |texts: &[&str]| -> Vec<Document> {
            texts
                .iter()
                .enumerate()
                .map(|(n, text)| Document { name: format!("{n}"), text: (*text).to_owned() })
                .collect()
        };
        let absent = |value: &Option<String>| value.clone().unwrap_or("–".into());
        let shown = |change: Change| {
            let was = change.was.map(|was| format!("{was} → ")).unwrap_or_default();
            let keys: Vec<_> = change
                .keys
                .iter()
                .map(|key| format!("{} {} → {}", key.key, absent(&key.old), absent(&key.new)))
                .collect();
            let hint = change.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{} {} {was}{}: {}{hint}", change.change, change.kind, change.name, keys.join(", "))
        };
        diff(&set(old), &set(new)).unwrap().into_iter().map(shown).collect()
    }

    #[test]
    fn changes_are_told_by_what_is_defined() {
        let both = format!("{AIRFLOW}{A}");
        let b = A.replace("\"a\"", "\"b\"");
        let cases: [(&str, Vec<String>, &[&str]); 12] = [
            ("nothing", vec![both.clone()], &[]),
            (
                "in another document, in another order, with a comment",
                vec![format!("# x\n{A}"), AIRFLOW.to_owned()],
                &[],
            ),
            ("written in another way", vec![format!("{A}[airflow]\nmain = {{ url = 'http://a' }}\n")], &[]),
            ("a key", vec![both.replace("\"d\"", "\"e\"")], &["changed schedule a: dag \"d\" → \"e\""]),
            (
                "a nested key, a new one and one less",
                vec![both.replace("dag = \"d\"\n", "conf = { x = { y = 1 }, z = [] }\n")],
                &["changed schedule a: conf.x.y – → 1, conf.z – → [], dag \"d\" → –"],
            ),
            (
                "one more",
                vec![format!("{both}{}", A.replace("\"a\"", "\"c\""))],
                &["added schedule c: cron – → \"@daily\", dag – → \"d\", name – → \"c\""],
            ),
            (
                "one less",
                vec![AIRFLOW.to_owned()],
                &["removed schedule a: cron \"@daily\" → –, dag \"d\" → –, name \"a\" → –"],
            ),
            (
                "another name, and nothing that says so",
                vec![format!("{AIRFLOW}{b}")],
                &[
                    "added schedule b: cron – → \"@daily\", dag – → \"d\", name – → \"b\" (if this is a under another name, add was = \"a\": by itself it begins from nothing)",
                    "removed schedule a: cron \"@daily\" → –, dag \"d\" → –, name \"a\" → –",
                ],
            ),
            (
                "another name with `was`",
                vec![format!("{AIRFLOW}{b}was = \"a\"\npaused = true\n")],
                &["renamed schedule a → b: paused – → true"],
            ),
            (
                "another name of several that it may have had",
                vec![format!("{AIRFLOW}{b}was = ['x', \"a\"]\n")],
                &["renamed schedule a → b: "],
            ),
            (
                "an Airflow",
                vec![both.replace("http://a", "http://b")],
                &["changed airflow main: url \"http://a\" → \"http://b\""],
            ),
            (
                "defaults of the first document and of another",
                vec![format!("[defaults]\nowner = \"x\"\n{both}"), "[defaults]\nowner = \"y\"\n".to_owned()],
                &["added defaults : owner – → \"x\"", "added defaults 1: owner – → \"y\""],
            ),
        ];
        for (case, new, expected) in cases {
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            assert_eq!(told(&[&both], &new), expected, "{case}");
            let back = told(&new, &[&both]);
            assert_eq!(back.is_empty(), expected.is_empty(), "{case}, the other way round: {back:?}");
        }
    }

    #[test]
    fn a_name_may_pass_on_from_one_that_is_removed() {
        let b = A.replace("\"a\"", "\"b\"").replace("daily", "hourly");
        let after = A.replace("\"a\"", "\"b\"") + "was = \"a\"\n";
        let told = told(&[&format!("{A}{b}")], &[&after]);
        assert!(told.contains(&"renamed schedule a → b: ".to_owned()), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("removed schedule b: ")) && told.len() == 2, "{told:?}");
    }

    #[test]
    fn of_two_that_look_alike_none_is_suggested() {
        let named = |name: &str| A.replace("\"a\"", &format!("\"{name}\""));
        let old = format!("{}{}", named("a"), named("b"));
        let told = told(&[&old], &[&named("c")]);
        let kinds: Vec<_> = told.iter().map(|line| line[..5].to_owned()).collect();
        assert_eq!(kinds, ["added", "remov", "remov"]);
        assert!(!told[0].contains("was"), "{told:?}");
    }

    #[test]
    fn a_rename_that_is_rolled_back_is_one() {
        let b = A.replace("\"a\"", "\"b\"") + "was = \"a\"\n";
        assert_eq!(told(&[&b], &[A]), ["renamed schedule b → a: "]);
    }

    #[test]
    fn another_name_of_something_else_is_another_thing() {
        let told = told(&[AIRFLOW], &[&AIRFLOW.replace("main", "other")]);
        assert_eq!(told, ["added airflow other: url – → \"http://a\"", "removed airflow main: url \"http://a\" → –"]);
    }

    #[test]
    fn what_is_no_toml_is_named() {
        let documents = [Document { name: "s/a.toml".into(), text: "[[schedule]\n".into() }];
        assert_eq!(diff(&documents, &[]).unwrap_err().name, "s/a.toml");
    }
}
