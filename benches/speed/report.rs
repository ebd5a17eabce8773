//! The results: one table for people on standard output, and the same as JSON.

use std::path::PathBuf;

use flowkeeper::clock::Clock;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Outcome;
use crate::measure::{Disk, Samples};
use crate::party::Cost;

/// What one party reached in one case.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    party: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_per_s: Option<f64>,
    /// Occurrences that became runs of their own, of 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
}

impl Row {
    pub(crate) fn new(case: &'static str, party: &'static str) -> Self {
        let note = String::new();
        Self { case, party, note, p50_ms: None, p99_ms: None, samples: None, runs_per_s: None, share: None, cost: None }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn latency(mut self, samples: &Samples) -> Self {
        self.p50_ms = Some(samples.percentile(50));
        self.p99_ms = Some(samples.percentile(99));
        self.samples = Some(samples.len());
        self
    }

    pub(crate) fn rate(mut self, runs_per_s: f64) -> Self {
        self.runs_per_s = Some(runs_per_s);
        self
    }

    pub(crate) fn share(mut self, share: f64) -> Self {
        self.share = Some(share);
        self
    }

    pub(crate) fn cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }
}

/// What was asked for, and whether it was reached.
#[derive(Serialize)]
pub(crate) struct Goal {
    case: &'static str,
    what: &'static str,
    measured: f64,
    limit: f64,
    unit: &'static str,
    more_is_better: bool,
    met: bool,
}

impl Goal {
    pub(crate) fn at_most(
        case: &'static str,
        what: &'static str,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self { case, what, measured, limit, unit, more_is_better: false, met: measured <= limit }
    }

    pub(crate) fn at_least(
        case: &'static str,
        what: &'static str,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self { case, what, measured, limit, unit, more_is_better: true, met: measured >= limit }
    }
}

/// Everything that was measured in this run.
pub(crate) struct Report {
    machine: Value,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

impl Report {
    pub(crate) fn new(disk: &Disk, quick: bool) -> Self {
        let machine = json!({
            "measured_at": Clock::system().now().to_string(),
            "quick": quick,
            "processor": line_of("/proc/cpuinfo", "model name"),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "memory": line_of("/proc/meminfo", "MemTotal"),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "fdatasync_p50_ms": disk.fdatasync.percentile(50),
            "fdatasync_p99_ms": disk.fdatasync.percentile(99),
        });
        println!("\n{}", serde_json::to_string(&machine).unwrap_or_default());
        println!("\n| case | party | | p50 ms | p99 ms | runs/s | own runs | ready after s | processor s | peak MiB |");
        println!("|---|---|---|--:|--:|--:|--:|--:|--:|--:|");
        Self { machine, rows: Vec::new(), goals: Vec::new() }
    }

    /// Adds a row and shows it at once.
    pub(crate) fn row(&mut self, row: Row) {
        let cost = |value: fn(&Cost) -> f64| show(row.cost.as_ref().map(value), 2);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.case,
            row.party,
            row.note,
            show(row.p50_ms, 2),
            show(row.p99_ms, 2),
            show(row.runs_per_s, 0),
            row.share.map(|share| format!("{:.1} %", 100.0 * share)).unwrap_or_default(),
            cost(|cost| cost.ready_after_s),
            cost(|cost| cost.processor_s),
            cost(|cost| cost.peak_memory_mib),
        );
        self.rows.push(row);
    }

    pub(crate) fn goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    /// Shows the goals and writes `target/bench.json`; cases of an earlier run that were not measured
    /// this time stay in it.
    pub(crate) fn finish(self) -> Outcome<()> {
        println!("\n| goal | | measured | wanted | met |");
        println!("|---|---|--:|--:|---|");
        for goal in &self.goals {
            println!(
                "| {} | {} | {:.2} {unit} | {} {:.2} {unit} | {} |",
                goal.case,
                goal.what,
                goal.measured,
                if goal.more_is_better { "≥" } else { "≤" },
                goal.limit,
                if goal.met { "yes" } else { "no" },
                unit = goal.unit,
            );
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let path = target.join("bench.json");
        let mut results: Value =
            std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_else(|| json!({}));
        let mut cases: Vec<&str> = self.rows.iter().map(|row| row.case).collect();
        cases.dedup();
        for case in cases {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.case == case).collect();
            let goals: Vec<&Goal> = self.goals.iter().filter(|goal| goal.case == case).collect();
            results[case] = json!({"machine": self.machine, "rows": rows, "goals": goals});
        }
        std::fs::write(&path, serde_json::to_string_pretty(&results)? + "\n")?;
        println!("\nalso in {}", path.display());
        Ok(())
    }
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map(|value| format!("{value:.digits$}")).unwrap_or_default()
}

/// What a `/proc` file says behind a name and a colon.
fn line_of(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
