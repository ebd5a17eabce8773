//! What an Airflow keeps in its database, byte for byte: its API hides secrets and writes JSON anew.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

/// The variables, pools and connections whose keys begin with `prefix`, by collection and key. `home` is
/// Airflow's, with its configuration, its database on SQLite, and `python`, which has Airflow's libraries.
pub(crate) async fn kept(home: &Path, prefix: &str) -> Value {
    let python = std::fs::read_to_string(home.join("python")).expect("the Python that Airflow runs with");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/airflow_kept.py");
    let mut command = tokio::process::Command::new(python.trim());
    command.arg(script).arg(home).arg(prefix).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect("run Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
