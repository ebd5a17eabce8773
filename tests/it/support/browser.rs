//! A real browser without a window: what a person would see of a page.

use std::process::Stdio;
use std::time::Duration;

use super::children;

/// How long a page may take; the browser itself needs seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// The document at `url` as the browser has it once everything is loaded.
pub(crate) async fn document(url: &str) -> String {
    let profile = tempfile::tempdir().expect("a directory for the browser");
    let mut command = children::mortal("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let shown = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(PATIENCE, shown).await.expect("the browser is done in time");
    let output = output.expect("it is waited for").expect("run chromium; scripts/install.sh packages installs it");
    assert!(output.status.success(), "chromium fails: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}
