//! `health`: the checks of an ensemble, now.
//!
//! Exit codes are those of monitoring plugins (0 ok, 1 warning, 2 critical, 3 unknown), so that the
//! command is a probe; whatever keeps it from looking is unknown too. What was found before is in [`past`].

mod past;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::arguments::{HealthArguments, OutputFormat};
use super::context::Context;
use super::error::{CommandError, Exit};
use super::output::{self, Cell, Fit, Output, Rows, Tone, printable};
use super::time::show_time;
use crate::app::connect;
use crate::config::model::Ensemble;
use crate::config::{Config, NoEnsemble};
use crate::domain::health::{CATALOGUE, Direction, Finding, Report, Verdict};
use crate::ensembles::{Freshness, KeptReport};
use crate::health::{self, Effort};

/// Exit codes by verdict, as the guidelines for monitoring plugins number them.
const WARNING: Exit = Exit::Of(1);
const CRITICAL: Exit = Exit::Of(2);
const UNKNOWN: Exit = Exit::Of(3);

/// The fields of a finding in CSV.
const FIELDS: [&str; 9] =
    ["check", "server", "verdict", "value", "unit", "threshold.warn", "threshold.critical", "meaning", "remedy"];

/// How a report came about.
enum Look {
    Now(Report),
    Before(KeptReport),
}

impl Look {
    fn report(&self) -> &Report {
        match self {
            Self::Now(report) | Self::Before(KeptReport { report, .. }) => report,
        }
    }

    /// What is known by it now: nothing by a report that is stale.
    fn verdict(&self) -> Verdict {
        match self {
            Self::Before(kept) if kept.freshness.stale => Verdict::Unknown,
            look => look.report().verdict,
        }
    }
}

pub(super) async fn run(context: &Context, arguments: &HealthArguments) -> Result<(), CommandError> {
    let unknown = |error: CommandError| error.with_exit(UNKNOWN);
    let config = context.config_in_force().await.map_err(unknown)?;
    let ensemble = config
        .ensemble_to_check(arguments.ensemble.as_deref())
        .map_err(|error| unknown(CommandError::usage(format!("failed to {error}")).hint(error.hint())))?;
    if arguments.history {
        return past::history(context, &config, &ensemble, arguments).await;
    }
    let look = if arguments.last {
        past::last(context, &config, &ensemble, arguments).await.map(Look::Before)
    } else {
        look(context, &config, &ensemble, arguments).await.map(Look::Now)
    };
    let look = look.map_err(unknown)?;
    if arguments.brief {
        output::line(&printable(&brief(&look)))?;
    } else {
        let zones = context.zones(&config);
        print(&context.output, &look, zones.common())?;
    }
    match look.verdict() {
        Verdict::Ok | Verdict::NotApplicable => Ok(()),
        Verdict::Warning => Err(CommandError::shown(WARNING)),
        Verdict::Critical => Err(CommandError::shown(CRITICAL)),
        Verdict::Unknown => Err(CommandError::shown(UNKNOWN)),
    }
}

/// Looks now, from here.
async fn look(
    context: &Context,
    config: &Config,
    ensemble: &Ensemble,
    arguments: &HealthArguments,
) -> Result<Report, CommandError> {
    let tried = format!("check the health of `{}`", ensemble.name);
    let target = connect::health(config, ensemble, Arc::new(context.environment.clone()))
        .map_err(|error| {
            CommandError::failed(format!("failed to {error}")).hint("set the variable or create the file")
        })?
        .ok_or_else(|| {
            CommandError::usage(format!("failed to {tried}: there is no home ensemble")).hint(NoEnsemble::None.hint())
        })?;
    let effort = Effort { interval: arguments.interval, timeout: arguments.timeout };
    let report = health::inspect(&target, effort, &context.clock).await.map_err(|reason| {
        CommandError::failed(format!("failed to {tried}: {reason}")).hint("correct it in the configuration")
    })?;
    Ok(report.limited_to(&arguments.checks))
}

/// `main: critical`, and when that was found if not now.
fn headline(look: &Look, output: &Output, zone: &TimeZone) -> String {
    let report = look.report();
    let verdict = output.paint(report.verdict.as_str(), tone(report.verdict));
    let headline = format!("{}: {verdict}", report.ensemble);
    match look {
        Look::Before(KeptReport { freshness: Freshness { checked_at: Some(at), stale, .. }, .. }) => {
            let note = if *stale { "; nobody has looked since, so it may be different now" } else { "" };
            format!("{headline}, found at {}{note}", show_time(*at, zone))
        }
        Look::Before(_) | Look::Now(_) => headline,
    }
}

fn print(output: &Output, look: &Look, zone: &TimeZone) -> Result<(), CommandError> {
    let report = look.report();
    match output.format() {
        OutputFormat::Json => {
            return match look {
                Look::Now(report) => output::json(report),
                Look::Before(kept) => output::json(kept),
            };
        }
        OutputFormat::Csv => return output.list(&report.checks, &FIELDS, || Rows::new([]), ""),
        OutputFormat::Github => return Err(output::github_is_for_check().with_exit(UNKNOWN)),
        OutputFormat::Table => {}
    }
    output::line(&headline(look, output, zone))?;
    output::line("")?;
    let grid = grid(report);
    if output.has_room_for(&grid) {
        output.table(&grid)?;
    } else {
        output.table(&list(report))?;
    }
    for info in &CATALOGUE {
        let to_tell = report.checks.iter().filter(|finding| finding.check == info.check && finding.remedy.is_some());
        let to_tell: Vec<&Finding> = to_tell.collect();
        let Some(verdict) = Verdict::worst(to_tell.iter().map(|finding| finding.verdict)) else { continue };
        output::line("")?;
        output::line(&format!("{} {}", output.paint(verdict.as_str(), tone(verdict)), info.name))?;
        for finding in &to_tell {
            let server = finding.server.as_ref().map(|server| format!("{server}: ")).unwrap_or_default();
            output.paragraph(&format!("{server}{}", finding.meaning))?;
        }
        let mut remedies: Vec<&str> = to_tell.iter().filter_map(|finding| finding.remedy.as_deref()).collect();
        remedies.dedup();
        for remedy in remedies {
            output.paragraph(&format!("hint: {remedy}"))?;
        }
    }
    Ok(())
}

/// A row a check and a column a server.
fn grid(report: &Report) -> Rows {
    let mut servers: Vec<&str> = Vec::new();
    for server in report.checks.iter().filter_map(|finding| finding.server.as_deref()) {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    let columns = ["CHECK".into(), "ENSEMBLE".into()].into_iter();
    let columns = columns.chain(servers.iter().map(|server| Cow::from((*server).to_owned())));
    let mut rows = Rows::with_columns(columns.map(|heading| (heading, Fit::Whole)));
    for info in &CATALOGUE {
        let found: Vec<&Finding> = report.checks.iter().filter(|finding| finding.check == info.check).collect();
        if found.is_empty() {
            continue;
        }
        let of = |server: Option<&str>| {
            found.iter().find(|finding| finding.server.as_deref() == server).map_or_else(Cell::default, |it| cell(it))
        };
        let mut cells = vec![Cell::from(info.name), of(None)];
        cells.extend(servers.iter().map(|server| of(Some(server))));
        rows.push(cells);
    }
    rows
}

/// A row a check and server, where the grid has no room.
fn list(report: &Report) -> Rows {
    let mut rows = Rows::new([("CHECK", Fit::Whole), ("SERVER", Fit::Wrap), ("FOUND", Fit::Whole)]);
    for finding in &report.checks {
        rows.push([finding.check.as_str().into(), finding.server.clone().unwrap_or_default().into(), cell(finding)]);
    }
    rows
}

fn cell(finding: &Finding) -> Cell {
    let value = finding.value.map(|value| shown(value, finding.unit.as_deref().unwrap_or_default()));
    let text = match (finding.verdict, value) {
        (Verdict::Ok, value) => value.unwrap_or_else(|| "ok".to_owned()),
        (Verdict::NotApplicable, _) => "-".to_owned(),
        (Verdict::Unknown, _) => "unknown".to_owned(),
        (bad, Some(value)) => format!("{value} {}", bad.as_str()),
        (bad, None) => bad.as_str().to_owned(),
    };
    Cell::toned(text, tone(finding.verdict))
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Ok => Tone::Good,
        Verdict::Warning => Tone::Warning,
        Verdict::Critical => Tone::Bad,
        Verdict::NotApplicable | Verdict::Unknown => Tone::Muted,
    }
}

/// A value for a column: counts without their unit.
fn shown(value: f64, unit: &str) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    match unit {
        "bytes" => {
            let mut rest = value;
            let mut unit = 0;
            while rest >= 1024.0 && unit + 1 < UNITS.len() {
                rest /= 1024.0;
                unit += 1;
            }
            if unit == 0 { format!("{rest} B") } else { format!("{rest:.1} {}", UNITS[unit]) }
        }
        "ms" | "%" | "s" | "days" => format!("{value} {unit}"),
        _ => value.to_string(),
    }
}

/// One line as monitoring plugins print it: what is bad, then the numbers behind `|`.
fn brief(look: &Look) -> String {
    let (report, verdict) = (look.report(), look.verdict());
    let mut told: Vec<String> = match (look, verdict) {
        (Look::Before(kept), _) if kept.freshness.stale => {
            let age_seconds = kept.freshness.age_ms.unwrap_or_default() / 1000;
            vec![format!("nobody has looked for {age_seconds} s, then it was {}", report.verdict.as_str())]
        }
        (_, Verdict::Ok | Verdict::NotApplicable) => vec![format!("{} findings", report.checks.len())],
        _ => report
            .checks
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .map(|finding| match &finding.server {
                Some(server) => format!("{} {server}", finding.check),
                None => finding.check.to_string(),
            })
            .collect(),
    };
    told.dedup();
    let mut line = format!("{} {}: {}", verdict.as_str().to_uppercase(), report.ensemble, told.join(", "));
    let mut separator = " |";
    for finding in &report.checks {
        let Some(value) = finding.value else { continue };
        let server = finding.server.as_ref().map(|server| format!(" {server}")).unwrap_or_default();
        let unit = match finding.unit.as_deref() {
            Some("ms") => "ms",
            Some("s") => "s",
            Some("%") => "%",
            Some("bytes") => "B",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = write!(line, "{separator} '{}{server}'={value}{unit}", finding.check);
        separator = "";
        if let (Some(limits), Some(direction)) = (finding.threshold, finding.check.info().direction) {
            let limit = |limit: Option<f64>| limit.map(|limit| range(limit, direction)).unwrap_or_default();
            let _ = write!(line, ";{};{}", limit(limits.warn), limit(limits.critical));
        }
    }
    line
}

/// A limit as the range of values that are still right.
fn range(limit: f64, direction: Direction) -> String {
    match direction {
        Direction::Above => limit.to_string(),
        Direction::Below => format!("{limit}:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::{Check, Thresholds};

    fn report() -> Report {
        let thresholds = Thresholds::default();
        let measured =
            |check, server, value| Finding::measured(&thresholds, check, server, Verdict::Ok, value, "It is so.");
        Report::new(
            "main".to_owned(),
            vec![
                Finding::told(Check::Serving, Some("zk1:2181"), Verdict::Critical, "It is gone."),
                Finding::told(Check::Serving, Some("zk2:2181"), Verdict::Ok, "It serves."),
                measured(Check::Latency, Some("zk2:2181"), 1.5),
                measured(Check::Certificate, Some("zk2:2181"), 20.0),
                Finding::unknown(Check::Latency, Some("zk1:2181"), "See `serving`."),
            ],
        )
    }

    #[test]
    fn values_are_short() {
        for (value, unit, text) in [
            (3.0, "servers", "3"),
            (2.5, "ms", "2.5 ms"),
            (12.0, "bytes", "12 B"),
            (67_108_880.0, "bytes", "64.0 MiB"),
            (2e15, "bytes", "1819.0 TiB"),
            (81.7, "%", "81.7 %"),
        ] {
            assert_eq!(shown(value, unit), text);
        }
    }

    #[test]
    fn a_line_for_monitoring_says_what_is_worst_and_has_the_numbers() {
        assert_eq!(
            brief(&Look::Now(report())),
            "CRITICAL main: serving zk1:2181 | 'latency zk2:2181'=1.5ms;100;500 'certificate zk2:2181'=20;30:;7:"
        );
        let fine = report().limited_to(&[Check::Latency]);
        assert_eq!(brief(&Look::Now(fine.clone())).split(" |").next(), Some("UNKNOWN main: latency zk1:2181"));
        let kept = |stale| {
            let freshness = Freshness { checked_at: None, age_ms: Some(61_500), stale };
            Look::Before(KeptReport { report: report(), freshness })
        };
        assert_eq!((kept(false).verdict(), kept(true).verdict()), (Verdict::Critical, Verdict::Unknown));
        let told = brief(&kept(true));
        assert!(told.starts_with("UNKNOWN main: nobody has looked for 61 s, then it was critical |"), "{told}");
    }
}
