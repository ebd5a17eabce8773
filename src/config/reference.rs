//! The JSON Schema of a configuration file, and its reference page.
//!
//! Both are made of the types that the reader uses ([`written`](super::written)) and of the comments
//! on them, so neither can tell something else than what is read.

use std::fmt::Write as _;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value};

use super::written::File;

/// The JSON Schema (draft 2020-12) of a configuration file, for editors.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(WithoutNull);
    settings.into_generator().into_root_schema_for::<File>().to_value()
}

/// The headers of the sections that have this key, for keys that stand outside of one.
pub(super) fn sections_with(key: &str) -> Vec<String> {
    let schema = schema();
    let page = Page { definitions: schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default() };
    let has = |table: &Value| properties(table).any(|(name, _)| name == key);
    properties(&schema)
        .filter_map(|(section, property)| match page.kind(property) {
            Kind::Table(table) if has(table) => Some(format!("[{section}]")),
            Kind::Named(table) if has(table) => Some(format!("[{section}.NAME]")),
            Kind::List(table) if has(table) => Some(format!("[[{section}]]")),
            _ => None,
        })
        .collect()
}

/// TOML has no null: what may be left out is not required, and that is all.
#[derive(Clone)]
struct WithoutNull;

impl Transform for WithoutNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(words)) = object.get_mut("enum") {
            words.retain(|word| !word.is_null());
        }
        if let Some(Value::Array(any)) = object.get_mut("anyOf") {
            any.retain(|schema| schema.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = any.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
    }
}

const INTRODUCTION: &str = "# Configuration

Every key of a configuration file, its default and its meaning. `flowkeeper schema` prints the same as a
JSON Schema for editors. `examples/flowkeeper.toml` is a whole file with comments.

The file is TOML in UTF-8. `flowkeeper check` tells all mistakes at once, each with file, line, key and
remedy; a key that is not known is a mistake. Paths are relative to the file that names them.

| value | is written |
|---|---|
| duration | a number and a unit, several of them from the largest to the smallest: `\"90s\"`, `\"5m\"`, `\"1h30m\"`, `\"7d\"`; the units are `ms`, `s`, `m`, `h`, `d` and `w` |
| secret | `{ env = \"NAME\" }`, an environment variable, or `{ file = \"path\" }`, a file; it is read when it is needed, and never printed |
| glob | `*` is any text, `?` any character, `[ab]` one of them, `{a,b}` either; in paths `*` stays within a part, and `**` crosses them |

A single value can be overridden by an environment variable: `FLOWKEEPER_`, the section and the key in
capitals, with two underscores between them, as in `FLOWKEEPER_SERVER__LISTEN=127.0.0.1:9000` or
`FLOWKEEPER_AIRFLOW__MAIN__URL=http://airflow:8080`. A `-` in a name becomes `_`.
";

const TEMPLATES: &str = "
## Templates

`conf` and `when` are written in the language of Jinja. A string in `conf` with `{{ … }}` or `{% … %}` in it is
a template; a string that is exactly one `{{ expression }}` keeps the type of its value. `when` is an expression,
without braces. A variable that is not defined is an error, and an error in an evaluation makes the run
`rejected`, with the reason. What does not apply is `none`.

| variable | is |
|---|---|
| `schedule` | `name`, `owner`, `dag`, `airflow`, `trigger`, `timezone` |
| `nominal_time` | the time that came due, of a cron schedule; in UTC as text, with `year`, `month`, `day`, `hour`, `minute`, `second` in the schedule's zone |
| `dag_run_id` | the id of the DAG run (in `conf` only) |
| `znode` | what changed: `path`, `name`, `event` (`created`, `changed`, `deleted`), `text` (none where the data is not UTF-8), `base64`, `json` (an error where the data is not JSON), `size_bytes`, `version`, `czxid`, `mzxid`, `recreated`, `coalesced`, `truncated` |
| `previous` | the same znode as it was last handled, or none |
| `ensemble` | of an ensemble schedule, what became of it: `name`, `event` and `server` (the first of `events`), `events` (each with `event`, `server`, `count`), `count`, `at`, `before` and `after` (`healthy`, `degraded`, `quorum_lost`), `leader_before`, `leader_after`, `servers` (each with `server` and `state`: `up`, `waiting`, `down`, `unknown`), `failing` (the checks that are not well, the worst first, with `check`, `server`, `verdict`, `value`, `unit`, `meaning`, `remedy`); of a znode schedule, the name of the ensemble, none for the home ensemble |
| `changes` | the changes of a batch, each like `znode`; with `settle` only |

| filter | writes |
|---|---|
| `date` | the day in the schedule's zone: `2026-11-22` |
| `datetime` | the time in the schedule's zone with its offset: `2026-11-22T03:30:00+01:00` |
| `strftime(\"%Y/%m\")` | the time in the schedule's zone, as the format says |
| `epoch` | seconds since 1970 |
| `in_zone(\"Asia/Tokyo\")` | the same time in another zone, for the filters after it |

The filters of Jinja are there as well: `default`, `lower`, `replace`, `join`, `tojson`, `int`, `split` and others.

Without `conf`, a change gives `{ znode = … }` with the keys above but `json`; `text` holds at most 8 KiB, and
`base64` is there only for data that is not UTF-8. A batch gives `{ changes = … }`, with at most 48 KiB of data in
all, and a time `{ schedule = …, nominal_time = … }`.
";

/// The reference page, `docs/configuration.md`.
pub fn reference_markdown() -> String {
    let schema = schema();
    let page = Page { definitions: schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default() };
    let mut text = INTRODUCTION.to_owned();
    let mut sections = Vec::new();
    let mut alone = Vec::new();
    for (key, property) in properties(&schema) {
        match page.kind(property) {
            Kind::Table(table) => sections.push((format!("[{key}]"), property, table)),
            Kind::Named(table) => sections.push((format!("[{key}.NAME]"), property, table)),
            Kind::List(table) => sections.push((format!("[[{key}]]"), property, table)),
            Kind::Single => alone.push((key.clone(), property)),
        }
    }
    text.push_str("\n## Above the sections\n\n");
    page.table(&mut text, alone.into_iter().map(|(key, property)| (key, property, false)));
    for (header, property, table) in sections {
        page.section(&mut text, &header, property, table);
    }
    text.push_str(TEMPLATES);
    text
}

struct Page {
    definitions: Map<String, Value>,
}

/// A key with its path, its schema, and whether it must be there.
type Row<'a> = (String, &'a Value, bool);

/// What a key holds, as far as headings go.
enum Kind<'a> {
    /// A table with keys of its own.
    Table(&'a Value),
    /// Tables by name.
    Named(&'a Value),
    /// An array of tables.
    List(&'a Value),
    /// A value.
    Single,
}

impl Page {
    fn section(&self, text: &mut String, header: &str, property: &Value, table: &Value) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## `{header}`\n\n{}\n\n", description(property));
        let mut rows = Vec::new();
        let mut lists = Vec::new();
        self.rows("", table, &mut rows, &mut lists);
        self.table(text, rows.into_iter());
        for (key, property, table) in lists {
            let header = format!("[[{}.{key}]]", header.trim_matches(['[', ']']));
            self.section(text, &header, property, table);
        }
    }

    /// The keys of a table, those of tables in it with their path; arrays of tables are kept for
    /// sections of their own.
    fn rows<'a>(
        &'a self,
        path: &str,
        table: &'a Value,
        rows: &mut Vec<Row<'a>>,
        lists: &mut Vec<(String, &'a Value, &'a Value)>,
    ) {
        let required = required(table);
        for (name, property) in properties(table) {
            let key = format!("{path}{name}");
            let required = required.contains(&name.as_str());
            match self.kind(property) {
                Kind::List(table) => lists.push((key, property, table)),
                Kind::Table(table) => {
                    rows.push((key.clone(), property, required));
                    self.rows(&format!("{key}."), table, rows, lists);
                }
                Kind::Named(table) => {
                    rows.push((key.clone(), property, required));
                    self.rows(&format!("{key}.NAME."), table, rows, lists);
                }
                Kind::Single => rows.push((key, property, required)),
            }
        }
    }

    fn table<'a>(&self, text: &mut String, rows: impl Iterator<Item = Row<'a>>) {
        text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        for (key, property, required) in rows {
            let default = match property.get("default") {
                Some(default) => format!("`{}`", toml_text(default)),
                None if required => "required".to_owned(),
                None => String::new(),
            };
            let _ = writeln!(
                text,
                "| `{key}` | {} | {default} | {} |",
                self.type_of(property),
                description(property).replace('\n', " ").replace('|', "\\|")
            );
        }
    }

    /// What a reference stands for.
    fn target<'a>(&'a self, schema: &'a Value) -> (Option<&'a str>, &'a Value) {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
        match name.and_then(|name| self.definitions.get(name)) {
            Some(target) => (name, target),
            None => (None, schema),
        }
    }

    fn kind<'a>(&'a self, property: &'a Value) -> Kind<'a> {
        let (_, target) = self.target(property);
        if is_secret(target) {
            return Kind::Single;
        }
        if target.get("properties").is_some() {
            return Kind::Table(target);
        }
        let below = |key: &str| target.get(key).map(|schema| self.target(schema).1);
        let is_table = |schema: &&Value| schema.get("properties").is_some();
        if let Some(table) = below("additionalProperties").filter(is_table) {
            return Kind::Named(table);
        }
        if let Some(table) = below("items").filter(is_table) {
            return Kind::List(table);
        }
        Kind::Single
    }

    fn type_of(&self, property: &Value) -> String {
        let (name, target) = self.target(property);
        if is_secret(target) {
            return "secret".to_owned();
        }
        if name == Some("Duration") {
            return "duration".to_owned();
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(Value::Array(choices)) = target.get(key) {
                return choices.iter().map(|choice| self.type_of(choice)).collect::<Vec<_>>().join(" or ");
            }
        }
        if let Some(Value::Array(words)) = target.get("enum") {
            return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        }
        if let Some(word) = target.get("const") {
            return format!("`{word}`");
        }
        match target.get("type").and_then(Value::as_str) {
            Some("string") => "text".to_owned(),
            Some("boolean") => "`true`, `false`".to_owned(),
            Some("integer") => match (target.get("minimum"), target.get("maximum")) {
                (Some(least), Some(most)) => format!("number from {least} to {most}"),
                _ => "number".to_owned(),
            },
            Some("number") => "number".to_owned(),
            Some("array") => {
                format!("array of {}", target.get("items").map_or("values".to_owned(), |items| self.type_of(items)))
            }
            Some("object") => match properties(target).collect::<Vec<_>>().as_slice() {
                [(key, _)] => format!("`{{ {key} = … }}`"),
                _ => "table".to_owned(),
            },
            _ => "value".to_owned(),
        }
    }
}

fn is_secret(schema: &Value) -> bool {
    properties(schema).map(|(key, _)| key.as_str()).eq(["env", "file"])
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn required(schema: &Value) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A default as TOML writes it; the values are texts, numbers, truth values and empty arrays.
fn toml_text(value: &Value) -> String {
    value.to_string()
}
