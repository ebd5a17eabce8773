//! Metrics of the health of ensembles, written from the latest reports whenever they are asked for.
//!
//! So a number that is not known has no series, and the series of a server or an ensemble that is gone
//! are gone with it; gauges that are set and stay could do neither.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::domain::health::{CATALOGUE, CheckInfo, Finding, Report, ServerState, Verdict};

const CODES: &str = "0 ok, 1 warning, 2 critical, 3 unknown";

/// A report, and when it was made.
pub type Seen<'r> = (&'r Report, Timestamp);

/// The text of Prometheus for these reports; empty without any.
pub fn render(reports: &[Seen<'_>], now: Timestamp) -> String {
    let mut text = String::new();
    if reports.is_empty() {
        return text;
    }
    family(&mut text, "flowkeeper_ensemble_verdict", &format!("The worst of all checks of the ensemble: {CODES}"));
    for (report, _) in reports {
        if let Some(code) = code(report.verdict) {
            sample(&mut text, "flowkeeper_ensemble_verdict", &[("ensemble", &report.ensemble)], code);
        }
    }
    let age = "flowkeeper_ensemble_report_age_seconds";
    family(&mut text, age, "How long ago the ensemble was last looked at");
    for (report, at) in reports {
        let age_seconds = now.duration_since(*at).as_secs_f64().max(0.0);
        sample(&mut text, age, &[("ensemble", &report.ensemble)], age_seconds);
    }
    let servers = "flowkeeper_ensemble_server_serves";
    family(&mut text, servers, "1 when the server serves, 0 when it does not; absent when that is not known");
    for (report, _) in reports {
        for view in &report.servers {
            let value = match view.state {
                ServerState::Up => 1.0,
                ServerState::Waiting | ServerState::Down => 0.0,
                ServerState::Unknown => continue,
            };
            sample(&mut text, servers, &[("ensemble", &report.ensemble), ("server", &view.server)], value);
        }
    }
    let verdicts = "flowkeeper_ensemble_check_verdict";
    family(&mut text, verdicts, &format!("What a check came to, by check and server: {CODES}"));
    for (report, finding) in findings(reports) {
        let Some(code) = code(finding.verdict) else { continue };
        let mut labels = labels(&report.ensemble, finding);
        labels.insert(1, ("check", finding.check.as_str()));
        sample(&mut text, verdicts, &labels, code);
    }
    for info in &CATALOGUE {
        values(&mut text, info, reports);
    }
    text
}

/// What one check measured.
fn values(text: &mut String, info: &CheckInfo, reports: &[Seen<'_>]) {
    let measured = findings(reports).filter(|(_, finding)| finding.check == info.check);
    let measured: Vec<_> = measured.filter_map(|(report, finding)| Some((report, finding, finding.value?))).collect();
    if measured.is_empty() {
        return;
    }
    let (suffix, unit, of) = base_unit(info.unit.unwrap_or_default());
    let name = format!("flowkeeper_ensemble_{}{suffix}", info.name);
    family(text, &name, &format!("What the check {} measured, in {unit}, by server where it is for each", info.name));
    for (report, finding, value) in measured {
        sample(text, &name, &labels(&report.ensemble, finding), of(value));
    }
}

/// Units as Prometheus has them: the end of the name, the words of the help, and how values become that.
fn base_unit(unit: &str) -> (&'static str, &str, fn(f64) -> f64) {
    match unit {
        "ms" => ("_seconds", "seconds", |value| value / 1000.0),
        "s" => ("_seconds", "seconds", |value| value),
        "days" => ("_seconds", "seconds", |value| value * 86_400.0),
        "%" => ("_ratio", "parts of one", |value| value / 100.0),
        "bytes" => ("_bytes", "bytes", |value| value),
        other => ("", other, |value| value),
    }
}

fn findings<'r>(reports: &[Seen<'r>]) -> impl Iterator<Item = (&'r Report, &'r Finding)> {
    reports.iter().flat_map(|(report, _)| report.checks.iter().map(move |finding| (*report, finding)))
}

fn labels<'a>(ensemble: &'a str, finding: &'a Finding) -> Vec<(&'static str, &'a str)> {
    let server = finding.server.as_deref().map(|server| ("server", server));
    std::iter::once(("ensemble", ensemble)).chain(server).collect()
}

/// As the exit codes of `flowkeeper health`; what does not apply has none.
fn code(verdict: Verdict) -> Option<f64> {
    match verdict {
        Verdict::Ok => Some(0.0),
        Verdict::Warning => Some(1.0),
        Verdict::Critical => Some(2.0),
        Verdict::Unknown => Some(3.0),
        Verdict::NotApplicable => None,
    }
}

fn family(text: &mut String, name: &str, help: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    text.push_str(name);
    for (number, (label, content)) in labels.iter().enumerate() {
        let escaped = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{}{label}=\"{escaped}\"", if number == 0 { '{' } else { ',' });
    }
    let _ = writeln!(text, "}} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::{Check, ServerView};

    fn report(ensemble: &str, findings: Vec<Finding>) -> Report {
        let mut report = Report::new(ensemble.to_owned(), findings);
        let state = |server: &str, state| ServerView { server: server.to_owned(), state };
        report.servers = vec![state("zk1:2181", ServerState::Up), state("zk2:2181", ServerState::Unknown)];
        report
    }

    #[test]
    fn what_is_known_has_a_series_and_what_is_not_has_none() {
        let found = |check, server, verdict| Finding::told(check, server, verdict, "It is so.");
        let (one, two) = (Some("zk1:2181"), Some("zk2:2181"));
        let main = report(
            "main",
            vec![
                found(Check::Quorum, None, Verdict::Ok).counting(3.0),
                found(Check::Latency, one, Verdict::Warning).counting(150.0),
                found(Check::Latency, two, Verdict::Unknown),
                found(Check::FileDescriptors, one, Verdict::Ok).counting(50.0),
                found(Check::DirectorySize, one, Verdict::Ok).counting(1024.0),
                found(Check::Certificate, one, Verdict::NotApplicable),
            ],
        );
        let solr = report("so\"lr", vec![]);
        let text = render(
            &[(&main, Timestamp::UNIX_EPOCH), (&solr, Timestamp::UNIX_EPOCH)],
            Timestamp::from_second(7).expect("a time"),
        );
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "flowkeeper_ensemble_verdict{ensemble=\"main\"} 1",
                "flowkeeper_ensemble_verdict{ensemble=\"so\\\"lr\"} 3",
                "flowkeeper_ensemble_report_age_seconds{ensemble=\"main\"} 7",
                "flowkeeper_ensemble_report_age_seconds{ensemble=\"so\\\"lr\"} 7",
                "flowkeeper_ensemble_server_serves{ensemble=\"main\",server=\"zk1:2181\"} 1",
                "flowkeeper_ensemble_server_serves{ensemble=\"so\\\"lr\",server=\"zk1:2181\"} 1",
                "flowkeeper_ensemble_check_verdict{ensemble=\"main\",check=\"quorum\"} 0",
                "flowkeeper_ensemble_check_verdict{ensemble=\"main\",check=\"latency\",server=\"zk1:2181\"} 1",
                "flowkeeper_ensemble_check_verdict{ensemble=\"main\",check=\"latency\",server=\"zk2:2181\"} 3",
                "flowkeeper_ensemble_check_verdict{ensemble=\"main\",check=\"file_descriptors\",server=\"zk1:2181\"} 0",
                "flowkeeper_ensemble_check_verdict{ensemble=\"main\",check=\"directory_size\",server=\"zk1:2181\"} 0",
                "flowkeeper_ensemble_quorum{ensemble=\"main\"} 3",
                "flowkeeper_ensemble_latency_seconds{ensemble=\"main\",server=\"zk1:2181\"} 0.15",
                "flowkeeper_ensemble_file_descriptors_ratio{ensemble=\"main\",server=\"zk1:2181\"} 0.5",
                "flowkeeper_ensemble_directory_size_bytes{ensemble=\"main\",server=\"zk1:2181\"} 1024",
            ]
        );
        assert!(text.contains("# TYPE flowkeeper_ensemble_latency_seconds gauge"), "{text}");
        assert_eq!(render(&[], Timestamp::UNIX_EPOCH), "");
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let names = CATALOGUE.iter().map(|info| format!("{}{}", info.name, base_unit(info.unit.unwrap_or_default()).0));
        let reserved = ["verdict", "report_age_seconds", "server_serves", "check_verdict", "inspection_seconds"];
        let all: Vec<String> = names.chain(reserved.map(ToOwned::to_owned)).collect();
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
