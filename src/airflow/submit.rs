//! From a [`Submission`] to a proven outcome, or to the admission that there is none yet.
//!
//! A refusal is only final when Airflow, asked for the DAG run by its id, says that there is none: an
//! earlier request whose answer was lost may have made it. A conflict is looked up before it is
//! believed, because Airflow 3 does not say which unique key was hit:
//!
//! | by id | by logical date | outcome |
//! |---|---|---|
//! | there, our store in its note | | accepted |
//! | there, another note | | rejected: two stores share a schedule name |
//! | absent | held by another DAG run | rejected, naming it |
//! | absent | none, or no date was sent | unknown: try again |
//!
//! Both versions write the note in the transaction that makes the DAG run (Airflow 2.7 to 3.3), so a
//! DAG run of ours without our note does not exist.

use jiff::Timestamp;

use super::answer::{self, PostVerdict};
use super::client::{Airflow, Call, Failure};
use super::pace::Load;
use super::{Api, DagRun, Error, Submission, SubmitOutcome, Submitted, v1, v2};
use crate::domain::note;
use crate::domain::run::AirflowState;

/// Asks `airflow` for a DAG run, or only looks for it, and says what is known afterwards.
pub async fn submit(airflow: &Airflow, submission: &Submission<'_>) -> Submitted {
    if submission.lookup_only {
        let by_id = Lookup::of(airflow.find_run(submission.dag_id, submission.dag_run_id).await);
        return Submitted { outcome: after_lookup(submission, by_id), load: Load::Unknown };
    }
    let make = |api| {
        let body = match api {
            Api::V1 => v1::trigger_body(submission),
            Api::V2 => v2::trigger_body(submission),
        };
        Call::new(reqwest::Method::POST, ["dags", submission.dag_id, "dagRuns"]).body(body)
    };
    let reply = match airflow.exchange(make).await {
        Ok(reply) => reply,
        Err(failure) => return without_answer(airflow, failure),
    };
    let status = reply.answer.status;
    let load = answer::load(status, reply.round_trip);
    let retry =
        |after, proven_absent, detail| SubmitOutcome::Retry { after, proven_absent, http_status: Some(status), detail };
    let outcome = match answer::classify_post(&reply.answer, submission.dag_run_id, airflow.now()) {
        PostVerdict::Accepted(run) => accepted(&run, status, None),
        PostVerdict::Unauthorized(detail) => SubmitOutcome::Unauthorized { http_status: Some(status), detail },
        PostVerdict::Throttled { after, detail } => retry(after, true, detail),
        PostVerdict::WrongApi(detail) => retry(None, true, detail),
        PostVerdict::Unknown { after, detail } => retry(after, false, detail),
        PostVerdict::DagMissing(detail) => {
            let missing = SubmitOutcome::DagMissing { http_status: status, detail };
            unless_there(airflow, submission, missing).await
        }
        PostVerdict::Rejected(said) => {
            let reason = format!("Airflow refused it: {said}");
            unless_there(airflow, submission, SubmitOutcome::Rejected { http_status: status, reason }).await
        }
        PostVerdict::Conflict => {
            let by_id = Lookup::of(airflow.find_run(submission.dag_id, submission.dag_run_id).await);
            let by_date = match (&by_id, submission.logical_date) {
                (Lookup::Absent, Some(date)) => {
                    Some(airflow.find_by_logical_date(submission.dag_id, date).await.map_err(|error| error.to_string()))
                }
                _ => None,
            };
            after_conflict(submission, status, by_id, by_date)
        }
    };
    Submitted { outcome, load }
}

/// What looking for a DAG run by its id brought.
#[derive(Debug)]
enum Lookup {
    Found(Box<DagRun>),
    /// In Airflow's own words.
    Absent,
    Unauthorized(String),
    Unknown(String),
}

impl Lookup {
    fn of(result: Result<DagRun, Error>) -> Self {
        match result {
            Ok(run) => Self::Found(Box::new(run)),
            Err(error) if error.is_absent() => Self::Absent,
            Err(error @ (Error::Unauthorized { .. } | Error::Login { .. })) => Self::Unauthorized(error.to_string()),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}

/// A refusal stands only if the DAG run does not exist.
async fn unless_there(airflow: &Airflow, submission: &Submission<'_>, refusal: SubmitOutcome) -> SubmitOutcome {
    match Lookup::of(airflow.find_run(submission.dag_id, submission.dag_run_id).await) {
        Lookup::Absent => refusal,
        found => after_lookup(submission, found),
    }
}

fn after_lookup(submission: &Submission<'_>, by_id: Lookup) -> SubmitOutcome {
    match by_id {
        Lookup::Found(run) => found(submission, &run, 200),
        Lookup::Absent => SubmitOutcome::Retry {
            after: None,
            proven_absent: true,
            http_status: Some(404),
            detail: "Airflow holds no DAG run of this id".to_owned(),
        },
        Lookup::Unauthorized(detail) => SubmitOutcome::Unauthorized { http_status: None, detail },
        Lookup::Unknown(detail) => {
            SubmitOutcome::Retry { after: None, proven_absent: false, http_status: None, detail }
        }
    }
}

fn after_conflict(
    submission: &Submission<'_>,
    status: u16,
    by_id: Lookup,
    by_date: Option<Result<Option<DagRun>, String>>,
) -> SubmitOutcome {
    let unknown =
        |detail: String| SubmitOutcome::Retry { after: None, proven_absent: false, http_status: Some(status), detail };
    match (by_id, by_date) {
        (Lookup::Found(run), _) => found(submission, &run, status),
        (Lookup::Absent, Some(Ok(Some(other)))) => {
            let date = submission.logical_date.map(|date: Timestamp| date.to_string()).unwrap_or_default();
            let reason = format!("logical date {date} of DAG {} is held by DAG run {}", other.dag_id, other.dag_run_id);
            SubmitOutcome::Rejected { http_status: status, reason }
        }
        (Lookup::Absent, Some(Err(detail))) => unknown(format!("a conflict, and its cause is not known: {detail}")),
        (Lookup::Absent, _) => unknown("a conflict, but neither the id nor the logical date is taken".to_owned()),
        (Lookup::Unauthorized(detail) | Lookup::Unknown(detail), _) => {
            unknown(format!("a conflict, and its cause is not known: {detail}"))
        }
    }
}

/// A DAG run of our id exists: it is ours, or somebody else's.
fn found(submission: &Submission<'_>, run: &DagRun, status: u16) -> SubmitOutcome {
    if note::is_ours(run.note.as_deref(), submission.store_id) {
        return accepted(run, status, Some("an earlier request had made it".to_owned()));
    }
    let note = run.note.as_deref().and_then(|note| note.lines().next()).filter(|line| !line.is_empty());
    let whose = note.map_or_else(|| "has no note".to_owned(), |line| format!("says: {line}"));
    let reason = format!(
        "DAG {} already has a DAG run {} that this store did not make (its note {whose}); \
         does another flowkeeper have a schedule of the same name?",
        run.dag_id, run.dag_run_id
    );
    SubmitOutcome::Rejected { http_status: status, reason }
}

fn accepted(run: &DagRun, http_status: u16, detail: Option<String>) -> SubmitOutcome {
    // It exists, whatever word Airflow has for its state; the monitor follows it from here.
    SubmitOutcome::Accepted { state: run.state.unwrap_or(AirflowState::Queued), http_status, detail }
}

fn without_answer(airflow: &Airflow, failure: Failure) -> Submitted {
    let retry = |proven_absent, detail| SubmitOutcome::Retry { after: None, proven_absent, http_status: None, detail };
    let (outcome, load) = match failure {
        Failure::NotSent(detail) => {
            (retry(true, format!("{} cannot be reached: {detail}", airflow.address())), Load::Unknown)
        }
        Failure::Lost(detail) => (retry(false, detail), Load::Overloaded),
        Failure::Login(error @ super::auth::AuthError::Unavailable(_)) => {
            (retry(true, format!("the login does not answer: {error}")), Load::Unknown)
        }
        Failure::Login(error) => {
            let detail = format!("{error}; hint: {}", error.hint());
            (SubmitOutcome::Unauthorized { http_status: None, detail }, Load::Unknown)
        }
        Failure::NoApi(error) => (retry(true, error.to_string()), Load::Unknown),
    };
    Submitted { outcome, load }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const DATE: &str = "2026-11-22T02:30:00Z";

    fn run(id: &str, note: &str) -> DagRun {
        DagRun {
            dag_id: "d".into(),
            dag_run_id: id.into(),
            state: Some(AirflowState::Running),
            run_type: None,
            logical_date: DATE.parse().ok(),
            queued_at: None,
            started_at: None,
            ended_at: None,
            note: Some(note.into()),
            conf: None,
        }
    }

    fn with_submission(check: impl FnOnce(&Submission<'_>)) {
        let conf = RawValue::from_string("{}".into()).unwrap();
        check(&Submission {
            dag_id: "d",
            dag_run_id: "r",
            conf: &conf,
            logical_date: DATE.parse().ok(),
            data_interval: None,
            note: "flowkeeper store abc",
            store_id: "abc",
            lookup_only: false,
        });
    }

    #[test]
    fn a_conflict_is_looked_up_before_it_is_believed() {
        with_submission(|submission| {
            let found = |note| Lookup::Found(Box::new(run("r", note)));
            let other = || Some(Ok(Some(run("manual__x", ""))));
            let cases = [
                (found("flowkeeper store abc\n"), None, "Accepted"),
                (found("flowkeeper store xyz"), None, "Rejected"),
                (found(""), None, "Rejected"),
                (Lookup::Absent, other(), "Rejected"),
                (Lookup::Absent, Some(Ok(None)), "Retry"),
                (Lookup::Absent, Some(Err("lost".into())), "Retry"),
                // Airflow 2 without a logical date: two requests in one microsecond.
                (Lookup::Absent, None, "Retry"),
                (Lookup::Unknown("lost".into()), None, "Retry"),
                (Lookup::Unauthorized("403".into()), None, "Retry"),
            ];
            for (by_id, by_date, expected) in cases {
                let shown = format!("{by_id:?} {by_date:?}");
                let outcome = after_conflict(submission, 409, by_id, by_date);
                assert!(format!("{outcome:?}").starts_with(expected), "{shown}: {outcome:?}");
                assert!(!matches!(outcome, SubmitOutcome::Retry { proven_absent: true, .. }), "{shown}");
            }
            let SubmitOutcome::Rejected { reason, .. } = after_conflict(submission, 409, Lookup::Absent, other())
            else {
                panic!("a logical date that is held is a rejection");
            };
            assert!(reason.contains("manual__x") && reason.contains(DATE), "{reason}");
        });
    }

    #[test]
    fn a_conf_is_sent_byte_for_byte() {
        let text = r#"{"b":1.10,"a":"é\u0041","big":123456789012345678901234567890,"b":2}"#;
        let conf = RawValue::from_string(text.into()).unwrap();
        with_submission(|submission| {
            let dated = Submission { conf: &conf, ..*submission };
            let dateless = Submission { conf: &conf, logical_date: None, ..*submission };
            for body in [
                v1::trigger_body(&dated),
                v2::trigger_body(&dated),
                v1::trigger_body(&dateless),
                v2::trigger_body(&dateless),
            ] {
                let body = String::from_utf8(body).unwrap();
                assert!(body.ends_with(&format!(r#","conf":{text}}}"#)), "{body}");
                serde_json::from_str::<serde_json::Value>(&body).unwrap();
            }
            assert!(String::from_utf8(v2::trigger_body(&dateless)).unwrap().contains(r#""logical_date":null"#));
            assert!(!String::from_utf8(v1::trigger_body(&dateless)).unwrap().contains("logical_date"));
        });
    }
}
