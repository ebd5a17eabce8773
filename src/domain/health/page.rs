//! The page that lists every check, `docs/health.md`, made of the catalogue.

use std::fmt::Write as _;

use super::catalogue::{CATALOGUE, CheckInfo, Scope};
use super::threshold::Direction;

const INTRODUCTION: &str = "# Health of an ensemble

`flowkeeper health [ENSEMBLE]` asks every server of an ensemble for what it knows of itself, works for a moment as
a client would, asks again, and judges what came back. It changes nothing but for ephemeral znodes of its own, which
are gone when it ends.

```
flowkeeper health                          # the home ensemble, or the only one
flowkeeper health solr -o json             # {ensemble, verdict, checks: [{check, server, verdict, value, unit, threshold, meaning, remedy}]}
flowkeeper health --brief                  # one line with performance data, for Nagios and its like
flowkeeper health --check serving,quorum   # these alone, and they alone decide on the exit code
flowkeeper health --interval 0s --check serving,leader,quorum,canary   # one sample, in well under a second
```

| verdict | exit code | means |
|---|---|---|
| `ok`, `not_applicable` | 0 | as it should be; or it does not exist here, as `certificate` without TLS |
| `warning` | 1 | somebody should look |
| `critical` | 2 | somebody must act |
| `unknown` | 3 | it could not be found out: never a zero |

The exit code is that of the worst finding: critical before warning before unknown before ok. What keeps the command
from looking, such as a configuration with a mistake, ends with 3 as well; only a mistake on the command line itself
ends with 2, as everywhere.

**How it asks.** Four-letter words (`srvr`, `mntr`, `isro`, `cons`, `conf`, `dirs`) go to the client port, over TLS where
the ensemble has `tls`; all servers are asked at the same time, one word after the other. Where a word is refused the
AdminServer stands in (`admin`, by default `http://{host}:8080/commands`; `\"off\"` asks none), and where it does not
answer either, what `srvr` tells alone must do. ZooKeeper's default whitelist allows `srvr` only: that is one finding,
`commands`, and what it hides is `unknown`. Each answer has `--timeout` to come (5 s), so that a server which accepts
connections and stays silent costs that long and no more.

**Two samples.** Averages and counters of ZooKeeper are since the server's start, and hide what happens now. So two
samples are taken, `--interval` apart (2 s), and checks that compare them are marked below. With one sample they are
`unknown`.

**The leader looks by itself** at every ensemble of the configuration, each `interval` of its section (15 s), and keeps
the latest report and every change of a verdict in the ledger. It takes one sample a look and compares it with that of
the look before. What becomes of an ensemble starts DAGs: see [ensemble-triggers.md](ensemble-triggers.md).

**Which servers.** Those of `connect`. The list of an ensemble that has lost its quorum cannot be read, so it is not
relied on; `membership` says where both differ.

**Limits** are set in the configuration, those that are left out stay as they are:

```toml
[ensemble.main]
thresholds = { znode_count = { warn = 50_000, critical = 200_000 }, churn = { warn = 60 } }
```

A limit is reached by the value itself: `warn = 10` warns at 10.

";

/// `docs/health.md`.
pub fn health_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("## All checks\n\n| check | on | value | warning | critical |\n|---|---|---|---|---|\n");
    for info in &CATALOGUE {
        let on = match info.scope {
            Scope::Server => "each server",
            Scope::Ensemble => "the ensemble",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| [`{name}`](#{name}) | {on} | {} | {} | {} |",
            info.unit.unwrap_or_default(),
            limit(info, info.limits.warn),
            limit(info, info.limits.critical),
            name = info.name,
        );
    }
    for info in &CATALOGUE {
        section(&mut page, info);
    }
    page
}

fn limit(info: &CheckInfo, limit: Option<f64>) -> String {
    match (info.direction, limit) {
        (None, _) => "see its rule".to_owned(),
        (Some(_), None) => "none".to_owned(),
        (Some(Direction::Above), Some(limit)) => format!("from {limit}"),
        (Some(Direction::Below), Some(limit)) => format!("from {limit} down"),
    }
}

fn section(page: &mut String, info: &CheckInfo) {
    let two = if info.needs_two_samples { " Compares two samples." } else { "" };
    let _ = write!(page, "\n## {}\n\n{}{two}\n\n- **When.** {}\n", info.name, info.about, info.rule);
    if let (Some(_), Some(unit)) = (info.direction, info.unit) {
        let _ = writeln!(
            page,
            "- **Limits.** In {unit}: warning {}, critical {}. From: {}.",
            limit(info, info.limits.warn),
            limit(info, info.limits.critical),
            info.limits_from
        );
    }
    let _ = writeln!(page, "- **Read from.** {}.", info.read_from);
    let _ = writeln!(page, "- **What to do.** {}", info.remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/health.md` is written by this test when `FLOWKEEPER_WRITE_DOCS` is set.
    #[test]
    fn the_page_is_that_of_the_catalogue() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/health.md");
        let page = health_markdown();
        if std::env::var_os("FLOWKEEPER_WRITE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page,
            "docs/health.md is not up to date: run FLOWKEEPER_WRITE_DOCS=1 cargo test --lib health"
        );
    }
}
