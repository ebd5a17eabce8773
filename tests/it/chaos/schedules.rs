//! What the members are told to do: several schedules by the clock and by znodes, on two Airflows.
//!
//! One Airflow is well and shows how long flowkeeper takes; the other fails one request in five in
//! every way that there is, and what goes to it must come to the same end.

use std::fmt::Write as _;

/// Every schedule by the clock, each due every second.
pub(crate) const CRON: [&str; 7] = ["tick", "tick-faulty", "tick-latest", "tick-newest", "locked-a", "locked-b", ECHO];

/// The one of them that stands in the file which is edited, and is due every second in every set.
pub(crate) const ECHO: &str = "echo";

/// The names of the schedule that is edited.
pub(crate) const EDITED_NAMES: [&str; 2] = ["edited", "renamed"];

/// The file that is edited, below a member's directory.
pub(crate) const EDITED: &str = "edited.toml";

/// Schedules of which only one run may be under way at a time, whosever it is.
pub(crate) const LOCKED: [&str; 2] = ["locked-a", "locked-b"];

/// Those of [`CRON`] whose every second must become a DAG run of its own; the others may skip or miss
/// seconds, and must say so.
pub(crate) const EVERY_SECOND_RUNS: [&str; 3] = ["tick", "tick-faulty", ECHO];

/// Every schedule by znodes.
pub(crate) const ZNODES: [&str; 4] = ["flag", "inbox", "tree", "life"];

/// The schedule whose seconds are measured, on the Airflow that is well.
pub(crate) const MEASURED_CRON: &str = "tick";

/// The schedule whose changes are measured, on the Airflow that is well.
pub(crate) const MEASURED_CHANGES: &str = "flag";

/// A znode whose data is set.
pub(crate) const FLAG: &str = "/flag";

/// Its children are consumed.
pub(crate) const INBOX: &str = "/inbox";

/// Znodes below it are created and set.
pub(crate) const TREE: &str = "/tree";

/// Znodes below it are created and deleted.
pub(crate) const LIFE: &str = "/life";

/// The names of the two Airflows.
pub(crate) const CALM: &str = "calm";
pub(crate) const FAULTY: &str = "faulty";

/// The configuration of a member, without what [`crate::support::process::Member`] adds.
pub(crate) fn configuration(zookeeper: &str, session_timeout_ms: u128, calm: &str, faulty: &str) -> String {
    let mut text = format!(
        r#"
[zookeeper]
connect = "{zookeeper}"
session_timeout = "{session_timeout_ms}ms"
"#
    );
    for (name, url) in [(CALM, calm), (FAULTY, faulty)] {
        let _ = write!(
            text,
            r#"
[airflow.{name}]
url = "{url}"
auth = {{ username = "admin", password = {{ file = "password" }} }}
timeout = "1s"
in_flight = 8
"#
        );
    }
    let schedules = [
        ("tick", CALM, r#"cron = "* * * * * *""#, r#"catchup = "all", overlap = "allow""#),
        ("tick-faulty", FAULTY, r#"cron = "* * * * * *""#, r#"catchup = "all", overlap = "allow""#),
        ("tick-latest", FAULTY, r#"cron = "* * * * * *""#, r#"catchup = "latest", overlap = "skip""#),
        ("tick-newest", CALM, r#"cron = "* * * * * *""#, r#"catchup = "all", overlap = "queue_one""#),
        ("locked-a", CALM, r#"cron = "* * * * * *""#, r#"overlap = "queue_one", lock = "warehouse""#),
        ("locked-b", FAULTY, r#"cron = "* * * * * *""#, r#"overlap = "queue_one", lock = "warehouse""#),
        ("flag", CALM, r#"znode = { path = "/flag", on = ["created", "changed"] }"#, ""),
        ("inbox", FAULTY, r#"znode = { path = "/inbox", watch = "children", consume = "accepted" }"#, ""),
        ("tree", FAULTY, r#"znode = { path = "/tree", watch = "subtree", on = ["created", "changed"] }"#, ""),
        ("life", CALM, r#"znode = { path = "/life", watch = "subtree", on = ["created", "deleted"] }"#, ""),
    ];
    for (name, airflow, trigger, policies) in schedules {
        let policies = policies.replace(", ", "\n");
        let _ = write!(
            text,
            r#"
[[schedule]]
name = "{name}"
{trigger}
airflow = "{airflow}"
dag = "{name}"
retry = {{ initial = "100ms", max = "300ms" }}
{policies}
"#
        );
    }
    text
}
