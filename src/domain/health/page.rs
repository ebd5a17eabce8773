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
connections and stays silent costs that long and no more. All answers to one sample have four times that together,
and the canary has two times: what a server that drips its answers did not tell by then is `unknown`, and says so.

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

## While members serve

The leader looks at the home ensemble with or without a section of its own, and at every `[ensemble.NAME]`. What it finds
is told in five places:

| where | what |
|---|---|
| the ledger | the latest report, and every change of a verdict, kept as long as runs are (`[store] retention`) |
| `flowkeeper health --last`, `--history` | the latest report with its age; what changed, the newest first |
| `GET /api/v1/ensembles` and below | the same, from any member |
| `/metrics` of the leader | verdicts and numbers |
| the znode `health/{ensemble}` under the root of the home ensemble | the latest look, for whoever reads ZooKeeper |

```
flowkeeper health --last                       # what the leader found last; asks no server
flowkeeper health --history --since 12h        # what changed last night
flowkeeper health solr --history --check canary
```

A report that is older than three intervals (and than half a minute) is **stale**: `stale` is true in the API, and
`--last` ends with 3, whatever the report says. Nobody looks then: no member leads, or its ledger is away.

**Over the API**

| path under `/api/v1` | |
|---|---|
| `GET ensembles` | every ensemble: `name, home, connect, interval_ms, verdict, checked_at, age_ms, stale, leader, quorum, servers` |
| `GET ensembles/{name}` | the same with `checks`, everything that was found, and the latest `transitions`; the home ensemble is `home` as well |
| `GET ensembles/{name}/checks` | every check: what it asks, its limits for this ensemble, its remedy, and what it last found |
| `GET ensembles/{name}/history?check&server&since&until&limit&cursor` | changes of verdicts, newest first: `at, check, server, before, after, value, unit, meaning` |
| `GET ensembles/{name}/transitions?limit&cursor` | what became of the ensemble, newest first |
| `POST ensembles/{name}/checks/{check}/run` | runs a check now: `{ensemble, verdict, checked_at, took_ms, checks}` |

A check that is run now is run by the member that is asked, and a token with the role `read` suffices: it changes nothing.
`{check}` may be several, separated by commas, or `all`. The answer is always of an inspection that began after the
request; requests that come while an ensemble is being inspected wait for the next one, all for the same. So a DAG that
asks for each of the 26 checks by itself costs two inspections. An inspection takes two seconds, longer where a server
stays silent.

**In Prometheus.** Verdicts are numbers like the exit codes: 0 ok, 1 warning, 2 critical, 3 unknown. What is unknown or
does not apply has no value: its series is absent, never zero, and so are those of servers and ensembles that are gone.

| metric | |
|---|---|
| `flowkeeper_ensemble_verdict{ensemble}` | the worst of all checks |
| `flowkeeper_ensemble_report_age_seconds{ensemble}` | how long ago it was looked at |
| `flowkeeper_ensemble_server_serves{ensemble,server}` | 1 or 0 |
| `flowkeeper_ensemble_check_verdict{ensemble,check,server}` | what each check came to; without `server` on the ensemble |
| `flowkeeper_ensemble_{check}…{ensemble,server}` | what the check measured, in base units: `…_latency_seconds`, `…_data_size_bytes`, `…_file_descriptors_ratio`, `…_outstanding_requests` |
| `flowkeeper_ensemble_canary_seconds{ensemble,step}` | how long each step of the canary took (histogram) |
| `flowkeeper_ensemble_inspection_seconds{ensemble}` | how long looking took (histogram) |

An alert on `flowkeeper_ensemble_verdict == 2` needs a second one on `absent(flowkeeper_ensemble_verdict)`: when no
member leads, nobody looks.

**In ZooKeeper**, `{root}/health/{ensemble}` is JSON: `ensemble`, `verdict`, `checked_at`, `member` (which looked), `leader`,
`quorum` and `checks` (what is not well). While the home ensemble has no quorum it cannot be written: read `checked_at`.
The znode goes when the ensemble leaves the configuration.

```python
data, _ = kazoo_client.get(\"/flowkeeper/health/main\")
print(json.loads(data)[\"verdict\"])
```

## As a probe

Without a serving member the command looks by itself; `--last` reads the ledger instead, and bothers no server.

```
# Nagios: /etc/nagios/objects/commands.cfg
define command {
  command_name  check_zookeeper
  command_line  /usr/local/bin/flowkeeper -c /etc/flowkeeper/flowkeeper.toml health $ARG1$ --brief
}
```

```yaml
# Kubernetes: a server is ready while it serves and a canary comes back. Each server has a section of its own
# with `connect = \"127.0.0.1:2181\"` in the configuration of its sidecar.
readinessProbe:
  exec:
    command: [flowkeeper, -c, /etc/flowkeeper.toml, health, self, --brief, --interval, 0s, --timeout, 2s, --check, \"serving,canary\"]
  periodSeconds: 15
  timeoutSeconds: 10
```

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
