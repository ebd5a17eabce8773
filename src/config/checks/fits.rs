//! Which keys and which variables go with which kind of trigger.

use super::super::section::Section;
use crate::domain::schedule::TriggerKind;
use crate::domain::template::{ConfTemplate, Expression};

/// Keys that one kind of trigger has and the others have not.
pub(super) fn check_keys_fit(section: &Section<'_, '_>, kind: TriggerKind) {
    const OF_CRON: [&str; 3] = ["dst", "jitter", "data_interval"];
    let goes_with = |key| match kind {
        TriggerKind::Cron => match key {
            "initial" => Some("`znode`"),
            "when" => Some("`znode` and `ensemble`"),
            _ => None,
        },
        TriggerKind::Znode => OF_CRON.contains(&key).then_some("`cron`"),
        TriggerKind::Ensemble | TriggerKind::Manual => match key {
            "initial" => Some("`znode`"),
            "catchup" | "catchup_window" => Some("`cron` and `znode`"),
            key => OF_CRON.contains(&key).then_some("`cron`"),
        },
    };
    for key in OF_CRON.into_iter().chain(["initial", "when", "catchup", "catchup_window"]) {
        let Some(others) = goes_with(key).filter(|_| section.has(key)) else { continue };
        section.error(&[key], format!("`{key}` goes with {others}, which this schedule has not"), "take it out");
    }
}

/// Variables that one kind of trigger has and the other has not.
pub(super) fn check_variables_fit(
    section: &Section<'_, '_>,
    kind: TriggerKind,
    when: Option<&Expression>,
    conf: Option<&ConfTemplate>,
) {
    let batches = section.value(&["znode", "settle"]).is_some();
    let missing: &[(&str, &str)] = match kind {
        TriggerKind::Cron => &[
            ("znode", "a cron schedule has no znode"),
            ("previous", "a cron schedule has no znode"),
            ("changes", "a cron schedule has no changes"),
        ],
        TriggerKind::Ensemble => &[
            ("znode", "an ensemble schedule has no znode"),
            ("previous", "an ensemble schedule has no znode"),
            ("changes", "an ensemble schedule has no changes"),
            ("nominal_time", "an ensemble schedule has no nominal time"),
        ],
        _ if batches => &[
            ("znode", "a batch has several changes"),
            ("previous", "a batch has several changes"),
            ("nominal_time", "a znode schedule has no nominal time"),
        ],
        _ => &[("nominal_time", "a znode schedule has no nominal time"), ("changes", "only a batch has `changes`")],
    };
    for (variable, why) in missing {
        let hint = match (*variable, batches) {
            ("znode" | "previous", true) => "use `changes`, a list of what `znode` would be",
            ("nominal_time", _) if kind == TriggerKind::Ensemble => "use `ensemble.at`",
            (_, _) if kind == TriggerKind::Ensemble => "use `ensemble`",
            ("changes", _) => "use `znode`, or add `settle` for batches",
            _ => "leave the variable out",
        };
        if conf.is_some_and(|conf| conf.uses(variable)) {
            section.error(&["conf"], format!("`{variable}` is never there: {why}"), hint);
        }
        // `when` judges each change, also of a batch; a cron schedule has none, which is told already.
        let fits = kind == TriggerKind::Cron || (batches && matches!(*variable, "znode" | "previous"));
        if !fits && when.is_some_and(|when| when.uses(variable)) {
            section.error(&["when"], format!("`{variable}` is never there: {why}"), hint);
        }
    }
    for variable in ["changes", "dag_run_id"] {
        if batches && when.is_some_and(|when| when.uses(variable)) {
            section.error(
                &["when"],
                format!("`when` judges each change before there is a batch, so `{variable}` is never there"),
                "use `znode` and `previous`",
            );
        }
    }
}
