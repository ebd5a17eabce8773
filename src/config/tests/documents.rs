//! The files that are made of the types, or that people start from.

use std::path::Path;

use super::{accepted, check};
use crate::config::{Config, EXAMPLE, Environment, reference, render};

fn in_repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_example_is_right_and_shows_every_section() {
    match check(&in_repository("examples/flowkeeper.toml"), &Environment::default()) {
        Ok((config, warnings)) => {
            assert_eq!(warnings, [], "{}", render::human(&warnings, render::Color::Off));
            assert_eq!(config.schedules.len(), 8);
        }
        Err(faults) => panic!("{}", render::human(&faults.faults, render::Color::Off)),
    }
    for section in crate::config::written::SECTIONS {
        assert!(EXAMPLE.contains(section), "the example does not show `{section}`");
    }
}

#[test]
fn the_example_of_several_members_is_right() {
    match check(&in_repository("examples/three-members.toml"), &Environment::default()) {
        Ok((config, warnings)) => {
            assert_eq!(warnings, [], "{}", render::human(&warnings, render::Color::Off));
            assert!(config.zookeeper.is_some() && config.server.advertise.is_some());
        }
        Err(faults) => panic!("{}", render::human(&faults.faults, render::Color::Off)),
    }
}

/// What is commented out in the example is right as well.
#[test]
fn the_comments_of_the_example_are_right() {
    let alternatives = ["auth", "headers", "tls", "sasl", "advertise", "connect", "name", "value", "role", "["];
    for line in EXAMPLE.lines().filter_map(|line| line.strip_prefix("# ")) {
        if !alternatives.iter().any(|start| line.starts_with(start)) || !line.contains(['=', '[']) {
            continue;
        }
        toml::de::DeTable::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// `docs/configuration.md` is written by this test when `FLOWKEEPER_WRITE_DOCS` is set.
#[test]
fn the_reference_page_is_that_of_the_types() {
    let path = in_repository("docs/configuration.md");
    let page = reference::reference_markdown();
    if std::env::var_os("FLOWKEEPER_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/configuration.md is not up to date: run FLOWKEEPER_WRITE_DOCS=1 cargo test --lib config"
    );
}

#[test]
fn the_schema_knows_no_null_and_every_section() {
    let schema = reference::schema();
    assert!(!schema.to_string().contains("null"), "{schema:#}");
    let properties = schema["properties"].as_object().unwrap();
    assert!(properties.keys().eq(crate::config::written::SECTIONS), "{:?}", properties.keys());
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["$defs"]["Schedule"]["required"], serde_json::json!(["name", "dag"]));
    assert!(!schema.to_string().contains("To come"));
}

/// Writing a default is the same as leaving it out.
#[test]
fn the_defaults_in_the_schema_are_those_that_apply() {
    let schema = reference::schema();
    let defaults = |name: &str, skip: &[&str]| -> String {
        let definition = &schema["$defs"][name];
        let lines = definition["properties"].as_object().unwrap().iter().filter_map(|(key, property)| {
            let default = property.get("default").filter(|_| !skip.contains(&key.as_str()))?;
            Some(format!("{key} = {default}\n"))
        });
        lines.collect()
    };
    let written = format!(
        "[server]\n{}[log]\n{}[store]\n{}[zookeeper]\nconnect = \"a\"\n{}[airflow.main]\nurl = \"http://a\"\n{}\
         [[schedule]]\nname = \"a\"\ndag = \"d\"\ncron = \"@daily\"\n{}[schedule.retry]\n{}\
         [[schedule]]\nname = \"b\"\ndag = \"d\"\ninitial = \"ignore\"\n[schedule.znode]\npath = \"/a\"\n{}",
        defaults("Server", &[]),
        defaults("Log", &[]),
        defaults("Store", &[]),
        defaults("ZooKeeper", &[]),
        defaults("Airflow", &[]),
        defaults("Schedule", &["initial"]),
        defaults("Retry", &[]),
        defaults("Znode", &[]),
    );
    let left_out = "[zookeeper]\nconnect = \"a\"\n[airflow.main]\nurl = \"http://a\"\n\
                    [[schedule]]\nname = \"a\"\ndag = \"d\"\ncron = \"@daily\"\n\
                    [[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\" }\n";
    let without_paths = |text: &str| {
        let config = Config { version: String::new(), ..accepted(text) };
        let directory = config.file.parent().unwrap().display().to_string();
        format!("{config:#?}").replace(&directory, "")
    };
    assert!(written.matches(" = ").count() > 25, "{written}");
    assert_eq!(without_paths(&written), without_paths(left_out));
}
