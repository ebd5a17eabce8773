//! How schedulers, triggerers and DAG processors are judged, look after look.

use super::*;
use ComponentKind::{DagProcessor, Scheduler, Triggerer};
use ComponentState::{Gone, Healthy, Stale};

/// A time so many seconds after noon.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_348_800 + seconds).unwrap()
}

fn job(kind: ComponentKind, id: i64, beat: i64) -> Job {
    let host = Some(format!("host-{id}"));
    Job { id, kind, hostname: host, started_at: Some(at(-1000)), heartbeat_at: at(beat), ended: None }
}

fn ended(job: Job, seconds: i64) -> Job {
    Job { ended: Some(Ended { at: Some(at(seconds)), state: "success".into() }), ..job }
}

fn part(name: &str, status: Option<&str>, beat: Option<i64>) -> HealthPart {
    HealthPart { name: name.into(), status: status.map(str::to_owned), heartbeat_at: beat.map(at) }
}

/// A health in which every kind with a process is well.
fn well() -> Vec<HealthPart> {
    ["metadatabase", "scheduler"].map(|name| part(name, Some("healthy"), None)).to_vec()
}

fn unwell(kind: ComponentKind) -> Vec<HealthPart> {
    vec![part("metadatabase", Some("healthy"), None), part(kind.as_str(), Some("unhealthy"), None)]
}

fn look(seconds: i64, health: Vec<HealthPart>, jobs: Jobs) -> Look {
    Look { at: at(seconds), airflow_time: at(seconds), health, jobs }
}

fn listed(jobs: Vec<Job>) -> Jobs {
    Jobs::Listed { jobs, since: None }
}

/// What is known after a look at noon with these jobs, all of which had just beaten.
fn known(jobs: &[(ComponentKind, i64)]) -> Vec<Component> {
    let jobs = jobs.iter().map(|(kind, id)| job(*kind, *id, 0)).collect();
    judge(&[], &look(0, well(), listed(jobs)), Duration::from_secs(30)).components
}

fn shown(judgement: &Judgement) -> Vec<Shown> {
    judgement.components.iter().map(|component| (component.kind, component.job, component.state)).collect()
}

/// What is told of a part.
type Shown = (ComponentKind, Option<i64>, ComponentState);

type Case = (&'static str, Vec<Component>, Look, Vec<Shown>, &'static [&'static str]);

fn compare(cases: Vec<Case>) {
    for (case, known, look, expected, warnings) in cases {
        let judgement = judge(&known, &look, Duration::from_secs(30));
        assert_eq!(shown(&judgement), expected, "{case}");
        assert_eq!(judgement.warnings, warnings, "{case}");
    }
}

#[test]
fn processes_are_judged_by_their_heartbeats() {
    let two = || known(&[(Scheduler, 1), (Scheduler, 2)]);
    let one = || known(&[(Scheduler, 1)]);
    let cases: Vec<Case> = vec![
        (
            "all beat",
            vec![],
            look(0, well(), listed(vec![job(Scheduler, 1, 0), job(Triggerer, 2, -30), job(DagProcessor, 3, -1)])),
            vec![(Scheduler, Some(1), Healthy), (Triggerer, Some(2), Healthy), (DagProcessor, Some(3), Healthy)],
            &[],
        ),
        (
            "a beat of the future, by a clock that is ahead",
            vec![],
            look(0, well(), listed(vec![job(Scheduler, 1, 90)])),
            vec![(Scheduler, Some(1), Healthy)],
            &[],
        ),
        (
            "one is late",
            two(),
            look(31, well(), listed(vec![job(Scheduler, 1, 0), job(Scheduler, 2, 30)])),
            vec![(Scheduler, Some(1), Stale), (Scheduler, Some(2), Healthy)],
            &["the scheduler on host-1 (job 1) has not beaten since 2026-11-22T12:00:00Z"],
        ),
        (
            "one is late for long, and another runs",
            two(),
            look(301, well(), listed(vec![job(Scheduler, 1, 0), job(Scheduler, 2, 300)])),
            vec![(Scheduler, Some(1), Gone), (Scheduler, Some(2), Healthy)],
            &[],
        ),
        (
            "the last of its kind is missed, however long",
            one(),
            look(86_400, unwell(Scheduler), listed(vec![job(Scheduler, 1, 0)])),
            vec![(Scheduler, Some(1), Stale)],
            &["the scheduler on host-1 (job 1) has not beaten since 2026-11-22T12:00:00Z"],
        ),
        (
            "one ended in order, and none took its place",
            one(),
            look(10, unwell(Scheduler), listed(vec![ended(job(Scheduler, 1, 0), 5)])),
            vec![(Scheduler, Some(1), Gone)],
            &["no scheduler runs"],
        ),
        (
            "started again on the same host",
            one(),
            look(10, well(), listed(vec![ended(job(Scheduler, 1, 0), 5), job(Scheduler, 4, 9)])),
            vec![(Scheduler, Some(1), Gone), (Scheduler, Some(4), Healthy)],
            &[],
        ),
        (
            "what went before it was ever seen is not remembered",
            vec![],
            look(
                900,
                well(),
                listed(vec![job(Scheduler, 4, 899), job(Scheduler, 1, 0), ended(job(Triggerer, 2, 0), 5)]),
            ),
            vec![(Scheduler, Some(4), Healthy)],
            &[],
        ),
    ];
    compare(cases);
}

#[test]
fn what_airflow_does_not_tell_proves_nothing() {
    let two = || known(&[(Scheduler, 1), (Scheduler, 2)]);
    let one = || known(&[(Scheduler, 1)]);
    let cases: Vec<Case> = vec![
        (
            "cleaned out of the metadata database",
            two(),
            look(15, well(), listed(vec![job(Scheduler, 2, 14)])),
            vec![(Scheduler, Some(2), Healthy), (Scheduler, Some(1), Gone)],
            &[],
        ),
        (
            "perhaps on a page that was not read",
            two(),
            look(15, well(), Jobs::Listed { jobs: vec![job(Scheduler, 2, 14)], since: Some(at(3)) }),
            vec![(Scheduler, Some(2), Healthy), (Scheduler, Some(1), Healthy)],
            &[],
        ),
        (
            "the jobs cannot be read this time",
            one(),
            look(600, unwell(Triggerer), Jobs::Untold),
            vec![(Scheduler, Some(1), Healthy)],
            &["no triggerer runs"],
        ),
        (
            "another Airflow that lists no jobs",
            one(),
            look(15, vec![part("scheduler", Some("healthy"), Some(14))], Jobs::NotOffered),
            vec![(Scheduler, Some(1), Gone), (Scheduler, None, Healthy)],
            &[],
        ),
        (
            "Airflow is stricter",
            one(),
            look(20, unwell(Scheduler), listed(vec![job(Scheduler, 1, 0)])),
            vec![(Scheduler, Some(1), Healthy)],
            &["Airflow calls its scheduler unhealthy"],
        ),
        ("none has ever run", vec![], look(0, unwell(Scheduler), listed(vec![])), vec![], &["no scheduler runs"]),
        (
            "the metadata database is away",
            one(),
            look(5, vec![part("metadatabase", Some("unhealthy"), None)], Jobs::Untold),
            vec![(Scheduler, Some(1), Healthy)],
            &["Airflow cannot work with its metadata database"],
        ),
    ];
    compare(cases);
}

#[test]
fn where_processes_are_not_told_the_kind_is_judged() {
    let by_kind = |status, beat| {
        let health = vec![part("metadatabase", Some("healthy"), None), part("scheduler", status, beat)];
        look(100, health, Jobs::NotOffered)
    };
    let healthy = judge(&[], &by_kind(Some("healthy"), Some(95)), Duration::from_secs(30));
    assert_eq!(shown(&healthy), [(Scheduler, None, Healthy)]);
    let cases: [(&str, Look, &[Shown], &[&str]); 4] = [
        (
            "old, though Airflow waits longer",
            by_kind(Some("healthy"), Some(60)),
            &[(Scheduler, None, Stale)],
            &["the scheduler has not beaten since 2026-11-22T12:01:00Z"],
        ),
        (
            "Airflow is stricter",
            by_kind(Some("unhealthy"), Some(80)),
            &[(Scheduler, None, Stale)],
            &["Airflow calls its scheduler unhealthy"],
        ),
        ("no longer told of", by_kind(None, None), &[(Scheduler, None, Gone)], &[]),
        ("never there", by_kind(Some("unhealthy"), None), &[(Scheduler, None, Gone)], &["no scheduler runs"]),
    ];
    for (case, look, expected, warnings) in cases {
        let judgement = judge(&healthy.components, &look, Duration::from_secs(30));
        assert_eq!(shown(&judgement), expected, "{case}");
        assert_eq!(judgement.warnings, warnings, "{case}");
    }
    // From now on this Airflow lists its jobs: it was upgraded.
    let upgraded = look(100, well(), listed(vec![job(Scheduler, 1, 99)]));
    let judgement = judge(&healthy.components, &upgraded, Duration::from_secs(30));
    assert_eq!(shown(&judgement), [(Scheduler, Some(1), Healthy)]);
    assert_eq!(judgement.forgotten, [(Scheduler, None)]);
}

#[test]
fn what_is_remembered_of_a_process_goes_on() {
    let before = known(&[(Scheduler, 1)]);
    let judgement = judge(&before, &look(60, well(), listed(vec![job(Scheduler, 1, 59)])), Duration::from_secs(30));
    let component = &judgement.components[0];
    assert_eq!((component.first_seen_at, component.last_seen_at), (at(0), at(60)));
    assert_eq!(component.heartbeat_age, Some(SignedDuration::from_secs(1)));

    let closed = ended(job(Scheduler, 1, 59), 70);
    let judgement = judge(&judgement.components, &look(75, well(), listed(vec![closed])), Duration::from_secs(30));
    let component = &judgement.components[0];
    assert_eq!((component.state, component.gone_at), (Gone, Some(at(70))));
    assert_eq!(component.reason.as_deref(), Some("it ended, Airflow says: success"));

    // A metadata database that was made anew gives numbers again.
    let another = Job { started_at: Some(at(80)), ..job(Scheduler, 1, 85) };
    let judgement = judge(&before, &look(90, well(), listed(vec![another])), Duration::from_secs(30));
    assert_eq!(judgement.components[0].first_seen_at, at(90));
}

#[test]
fn an_airflow_that_goes_keeps_its_last_word_and_the_time_since() {
    let url = || "http://airflow.example".to_owned();
    let first = look(0, well(), Jobs::NotOffered);
    let up = Report::answered(None, "main", url(), &first, vec!["no triggerer runs".into()]);
    assert_eq!((up.reach, up.since, up.answered_at), (Reach::Up, at(0), Some(at(0))));
    let later = Report::answered(Some(&up), "main", url(), &look(15, well(), Jobs::NotOffered), vec![]);
    assert_eq!((later.since, later.checked_at, later.warnings.len()), (at(0), at(15), 0));

    let away = Report::unreachable(Some(&later), "main", url(), at(30), "refused".into());
    let still = Report::unreachable(Some(&away), "main", url(), at(45), "no answer in time".into());
    assert_eq!((still.reach, still.since, still.checked_at), (Reach::Unreachable, at(30), at(45)));
    assert_eq!((still.answered_at, &still.health), (Some(at(15)), &well()));
    assert_eq!(still.reason.as_deref(), Some("no answer in time"));
    assert_eq!(still.warnings, ["it cannot be reached since 2026-11-22T12:00:30Z"]);

    let back = Report::answered(Some(&still), "main", url(), &look(60, well(), Jobs::NotOffered), vec![]);
    assert_eq!((back.since, back.reason), (at(60), None));
    let never = Report::unreachable(None, "main", url(), at(0), "refused".into());
    assert_eq!((never.since, never.answered_at), (at(0), None));
}
