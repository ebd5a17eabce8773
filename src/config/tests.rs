//! Configurations as people write them, right and wrong, from text to values or faults.

use super::*;

mod accepted;
mod arbitrary;
mod documents;
mod pushed;
mod secrets;
mod syncs;
mod wrong;

/// An Airflow for schedules to name.
const AIRFLOW: &str = "[airflow.main]\nurl = \"http://127.0.0.1:8080\"\n";

/// A home ensemble and an Airflow.
const BOTH: &str = "[zookeeper]\nconnect = \"127.0.0.1:2181\"\n[airflow.main]\nurl = \"http://127.0.0.1:8080\"\n";

/// Checks files in a directory of their own; the first is the main one.
fn check_files(files: &[(&str, &[u8])], variables: &[(&str, &str)]) -> (Result<(Config, Vec<Fault>), Faults>, String) {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let environment: Environment = variables.iter().copied().collect();
    let result = check(&directory.path().join(files[0].0), &environment);
    let directory = format!("{}/", directory.path().display());
    (result, directory)
}

/// What a person reads about these files, with paths relative to their directory.
fn told(files: &[(&str, &[u8])], variables: &[(&str, &str)]) -> String {
    let (result, directory) = check_files(files, variables);
    let text = match &result {
        Ok((_, warnings)) => render::human(warnings, render::Color::Off),
        Err(faults) => render::human(&faults.faults, render::Color::Off),
    };
    text.replace(&directory, "")
}

/// The configuration in this text, which is right.
fn accepted(text: &str) -> Config {
    match check_files(&[("flowkeeper.toml", text.as_bytes())], &[]).0 {
        Ok((config, _)) => config,
        Err(faults) => panic!("{}", render::human(&faults.faults, render::Color::Off)),
    }
}
