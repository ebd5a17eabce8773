//! The Python that `init` installs, with the Python of a real Airflow 3 and of a real Airflow 2: the
//! client against members that answer in every way, and what operators make of verdicts.

use std::path::PathBuf;
use std::process::Command;

/// Runs the unit tests of `tests/dags` with the Python of the Airflow in the folder that `variable` names.
async fn test_with(variable: &str) {
    let home = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: `make test` starts the Airflow that this test needs"));
    let python = std::fs::read_to_string(PathBuf::from(home).join("python")).expect("the path of Airflow's Python");
    let root = env!("CARGO_MANIFEST_DIR");
    let directory = tempfile::tempdir().expect("a directory for Airflow");
    let mut command = Command::new(python.trim());
    command
        .args(["-W", "ignore", "-m", "unittest", "discover", "--buffer", "--start-directory"])
        .arg(format!("{root}/tests/dags"))
        .current_dir(directory.path())
        .env("PYTHONPATH", format!("{root}/dags"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Airflow writes its configuration there when it is imported.
        .env("AIRFLOW_HOME", directory.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it is waited for");
    let output = output.expect("run Python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("\nOK"), "{said}");
}

#[tokio::test]
async fn tasks_end_as_verdicts_say_in_airflow_3() {
    test_with("FLOWKEEPER_TEST_AIRFLOW3").await;
}

#[tokio::test]
async fn tasks_end_as_verdicts_say_in_airflow_2() {
    test_with("FLOWKEEPER_TEST_AIRFLOW2").await;
}
