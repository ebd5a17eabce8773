//! Tells in ZooKeeper what the rounds have seen: the znode `health/{ensemble}` under the root.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::{Inspection, Inspections};
use crate::domain::health::{Finding, Quorum, Report, Verdict};
use crate::publisher::{HEALTH, Publisher};
use crate::store::model::microseconds;

/// What the znode holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct HealthNode<'r> {
    ensemble: &'r str,
    /// The worst of all checks.
    verdict: Verdict,
    /// When the look began.
    #[serde(serialize_with = "microseconds")]
    checked_at: Timestamp,
    /// Which member looked.
    member: &'r str,
    /// The server that leads; null where none does, or it is not known.
    leader: Option<&'r str>,
    /// Whether a majority of the voting servers works; null where it is not known.
    quorum: Option<Quorum>,
    /// What is not as it should be; empty when all is well.
    checks: Vec<&'r Finding>,
}

impl<'r> HealthNode<'r> {
    fn of(report: &'r Report, checked_at: Timestamp, member: &'r str) -> Self {
        let is_told = |finding: &&Finding| !matches!(finding.verdict, Verdict::Ok | Verdict::NotApplicable);
        Self {
            ensemble: &report.ensemble,
            verdict: report.verdict,
            checked_at,
            member,
            leader: report.leader.as_deref(),
            quorum: report.quorum,
            checks: report.checks.iter().filter(is_told).collect(),
        }
    }
}

/// Hands each look of `member` to the publisher, until nobody looks any more. What an ensemble's znode
/// holds stays when nobody looks at it: it says when it was true. It goes when the ensemble has left the
/// configuration.
pub async fn tell(mut inspections: watch::Receiver<Inspections>, publisher: Publisher, member: String) {
    let mut told: BTreeMap<Arc<str>, Arc<Inspection>> = BTreeMap::new();
    loop {
        let latest = inspections.borrow_and_update().clone();
        for (name, inspection) in &latest {
            if told.get(name).is_none_or(|known| !Arc::ptr_eq(known, inspection)) {
                let node = HealthNode::of(&inspection.report, inspection.began, &member);
                publisher.publish(&format!("{}/{name}", HEALTH.name), &node);
            }
        }
        told = latest;
        if inspections.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::Check;

    #[test]
    fn the_znode_tells_what_is_not_well() {
        let found = |check, verdict| Finding::told(check, Some("zk1:2181"), verdict, "It is so.");
        let mut report = Report::new(
            "main".into(),
            vec![
                found(Check::Serving, Verdict::Ok),
                found(Check::Latency, Verdict::Unknown),
                found(Check::Fsync, Verdict::Warning),
                found(Check::Watches, Verdict::NotApplicable),
            ],
        );
        report.leader = Some("zk1:2181".into());
        let node = HealthNode::of(&report, Timestamp::UNIX_EPOCH, "host-a:8787~1");
        let node = serde_json::to_value(node).expect("JSON");
        assert_eq!((&node["verdict"], &node["member"]), (&"warning".into(), &"host-a:8787~1".into()));
        assert_eq!((&node["leader"], &node["quorum"]), (&"zk1:2181".into(), &serde_json::Value::Null));
        assert_eq!(node["checked_at"], "1970-01-01T00:00:00.000000Z");
        let checks = node["checks"].as_array().expect("checks");
        let told: Vec<&str> = checks.iter().filter_map(|one| one["check"].as_str()).collect();
        assert_eq!(told, ["latency", "fsync"]);
    }
}
