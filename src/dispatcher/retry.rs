//! What follows an answer of Airflow's: a pure function over the answer and the run's past.
//!
//! Only a proven outcome ends a run. When its time for retries is over and nothing is proven, the
//! row stays pending and Airflow is only asked, never told again: whoever looks at the row may still
//! find its DAG run, and must not find two.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::airflow::SubmitOutcome;
use crate::domain::schedule::RetryPolicy;
use crate::store::model::{AttemptOutcome, Ticket};

/// How often a row whose outcome stayed unknown is looked up.
const LOOKUP_PAUSE: Duration = Duration::from_mins(5);

/// What is to be recorded of an attempt.
#[derive(Debug, Clone)]
pub(super) struct Conclusion {
    pub(super) outcome: AttemptOutcome,
    pub(super) http_status: Option<u16>,
    pub(super) detail: Option<String>,
}

/// Judges the answer to the attempt `number` (1 for the first) of a run.
pub(super) fn conclude(
    answer: SubmitOutcome,
    ticket: &Ticket,
    policy: RetryPolicy,
    number: i64,
    started_at: Timestamp,
    now: Timestamp,
) -> Conclusion {
    let first = ticket.first_attempt_at.unwrap_or(started_at);
    let over = ticket.lookup_only || now.duration_since(first) >= signed(policy.total);
    let (proven_absent, after, http_status, detail) = match answer {
        SubmitOutcome::Accepted { state, http_status, detail } => {
            return Conclusion { outcome: AttemptOutcome::Accepted(state), http_status: Some(http_status), detail };
        }
        SubmitOutcome::Rejected { http_status, reason } => {
            return Conclusion {
                outcome: AttemptOutcome::Rejected,
                http_status: Some(http_status),
                detail: Some(reason),
            };
        }
        // That this request made nothing proves nothing about those before it; a look-up does.
        SubmitOutcome::Retry { after, proven_absent, http_status, detail } => {
            (proven_absent && ticket.lookup_only, after, http_status, detail)
        }
        // This request made no DAG run, but an earlier one whose answer was lost may have.
        SubmitOutcome::Unauthorized { http_status, detail } => (false, None, http_status, detail),
        // A DAG that does not exist has no DAG runs, whoever asked for them.
        SubmitOutcome::DagMissing { http_status, detail } => (true, None, Some(http_status), detail),
    };
    let outcome = if !over {
        AttemptOutcome::Retry { at: later(now, pause(ticket, policy, number).max(after.unwrap_or_default())) }
    } else if proven_absent {
        AttemptOutcome::Rejected
    } else if !ticket.lookup_only {
        // An earlier request may have made the DAG run: the first look is taken at once.
        AttemptOutcome::Unknown { at: now }
    } else {
        AttemptOutcome::Unknown { at: later(now, LOOKUP_PAUSE.max(after.unwrap_or_default())) }
    };
    Conclusion { outcome, http_status, detail: Some(detail) }
}

/// The pause after attempt `number`: doubling from `initial` to `max`, less up to a quarter that is
/// hashed from the run, so that runs that failed together do not come back together.
fn pause(ticket: &Ticket, policy: RetryPolicy, number: i64) -> Duration {
    let doublings = u32::try_from(number.saturating_sub(1)).unwrap_or(u32::MAX).min(30);
    let pause = policy.initial.saturating_mul(1 << doublings).min(policy.max);
    let digest = Sha256::digest(format!("{} {number}", ticket.dag_run_id));
    let share = u32::from(digest.first().copied().unwrap_or_default());
    pause.saturating_sub(pause * share / (4 * 256))
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(signed(by)).unwrap_or(Timestamp::MAX)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::{AirflowState, RunId};
    use crate::domain::schedule::{ScheduleName, TriggerKind};
    use serde_json::value::RawValue;

    fn ticket(first_attempt_at: Option<Timestamp>, lookup_only: bool) -> Ticket {
        Ticket {
            id: RunId(1),
            schedule: ScheduleName::new("nightly").unwrap(),
            airflow: "main".into(),
            dag_id: "d".into(),
            dag_run_id: "flowkeeper__nightly__m1".into(),
            trigger: TriggerKind::Manual,
            due_at: Timestamp::UNIX_EPOCH,
            conf: RawValue::from_string("{}".into()).unwrap(),
            logical_date: None,
            data_interval: None,
            attempts: 0,
            first_attempt_at,
            not_before: None,
            lookup_only,
            lock: None,
        }
    }

    fn unknown(proven_absent: bool) -> SubmitOutcome {
        SubmitOutcome::Retry {
            after: None,
            proven_absent,
            http_status: Some(500),
            detail: "Airflow answered 500".into(),
        }
    }

    #[test]
    fn only_a_proven_outcome_is_final() {
        let policy = RetryPolicy::default();
        let start = Timestamp::UNIX_EPOCH;
        let (early, late) = (start + SignedDuration::from_mins(1), start + SignedDuration::from_hours(7));
        let missing = || SubmitOutcome::DagMissing { http_status: 404, detail: "no such DAG".into() };
        let refused = || SubmitOutcome::Unauthorized { http_status: Some(403), detail: "Forbidden".into() };
        let accepted = SubmitOutcome::Accepted { state: AirflowState::Queued, http_status: 200, detail: None };
        let rejected = SubmitOutcome::Rejected { http_status: 422, reason: "conf must be an object".into() };
        let cases = [
            (accepted, false, early, "accepted"),
            (rejected, false, early, "rejected"),
            (unknown(false), false, early, "retry"),
            (unknown(true), false, early, "retry"),
            (unknown(false), false, late, "unknown"),
            (unknown(true), false, late, "unknown"),
            // Only looked up since: absent now is the proof that was missing.
            (unknown(false), true, late, "unknown"),
            (unknown(true), true, late, "rejected"),
            (missing(), false, early, "retry"),
            (missing(), false, late, "rejected"),
            (refused(), false, early, "retry"),
            (refused(), false, late, "unknown"),
        ];
        for (answer, lookup_only, now, expected) in cases {
            let shown = format!("{answer:?} lookup_only={lookup_only} at {now}");
            let conclusion = conclude(answer, &ticket(Some(start), lookup_only), policy, 3, now, now);
            assert_eq!(conclusion.outcome.as_str(), expected, "{shown}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_never_fall_below_three_quarters() {
        let policy = RetryPolicy::default();
        let ticket = ticket(None, false);
        for (number, full) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)] {
            let pause = pause(&ticket, policy, number);
            let full = Duration::from_secs(full);
            assert!(pause <= full && pause >= full * 3 / 4, "pause {number} is {pause:?}");
        }
    }

    #[test]
    fn airflows_own_wish_is_granted() {
        let answer = SubmitOutcome::Retry {
            after: Some(Duration::from_mins(5)),
            proven_absent: true,
            http_status: Some(429),
            detail: "too many requests".into(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let conclusion = conclude(answer, &ticket(None, false), RetryPolicy::default(), 1, now, now);
        let AttemptOutcome::Retry { at } = conclusion.outcome else { panic!("not a retry") };
        assert_eq!(at, now + SignedDuration::from_secs(300));
    }
}
