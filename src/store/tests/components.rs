//! What the ledger remembers of Airflows and their parts.

use std::time::Duration;

use super::*;
use crate::domain::component::{
    Component, ComponentKind, ComponentState, Ended, HealthPart, Job, Jobs, Judgement, Look, Reach, Report, judge,
};

on_both_stores! {
    World:
    the_last_report_and_all_parts_are_remembered,
    parts_that_are_gone_go_with_the_retention_and_the_others_stay,
    of_those_that_are_gone_the_last_are_shown,
    a_leader_that_was_replaced_notes_nothing,
    a_report_and_its_parts_are_of_the_same_look,
}

fn job(id: i64, beat: Timestamp) -> Job {
    Job {
        id,
        kind: ComponentKind::Scheduler,
        hostname: Some("host-a".into()),
        started_at: Some(start()),
        heartbeat_at: beat,
        ended: None,
    }
}

fn look(at: Timestamp, jobs: Vec<Job>) -> Look {
    let part = |name: &str| HealthPart { name: name.into(), status: Some("healthy".into()), heartbeat_at: Some(at) };
    let jobs = Jobs::Listed { jobs, since: None };
    Look { at, airflow_time: at, health: vec![part("metadatabase"), part("scheduler")], jobs }
}

impl World {
    /// Notes a look; what is remembered then of the parts, in the order of their jobs.
    async fn note(&self, known: &[Component], look: &Look) -> Vec<Component> {
        let judgement = judge(known, look, Duration::from_secs(30));
        let url = "http://airflow.example".to_owned();
        let report = Report::answered(None, "main", url, look, judgement.warnings.clone());
        self.ledger.note_airflow(&self.leadership, &report, &judgement).await.unwrap();
        self.parts().await
    }

    async fn parts(&self) -> Vec<Component> {
        let mut parts: Vec<_> =
            self.ledger.airflows().await.unwrap().into_iter().flat_map(|(_, components)| components).collect();
        parts.sort_by_key(|component| component.job);
        parts
    }
}

async fn the_last_report_and_all_parts_are_remembered(world: World) {
    assert!(world.ledger.airflows().await.unwrap().is_empty());
    let first = world.note(&[], &look(minute(0), vec![job(1, minute(0)), job(2, minute(0))])).await;
    let expected = judge(&[], &look(minute(0), vec![job(1, minute(0)), job(2, minute(0))]), Duration::from_secs(30));
    assert_eq!(first, expected.components);

    let closed = Job { ended: Some(Ended { at: Some(minute(1)), state: "success".into() }), ..job(1, minute(1)) };
    let second = look(minute(2), vec![closed, job(2, minute(2))]);
    let remembered = world.note(&first, &second).await;
    let shown: Vec<_> =
        remembered.iter().map(|part| (part.job, part.state, part.first_seen_at, part.gone_at)).collect();
    let (gone, healthy) = (ComponentState::Gone, ComponentState::Healthy);
    assert_eq!(shown, [(Some(1), gone, minute(0), Some(minute(1))), (Some(2), healthy, minute(0), None)]);

    let before = world.ledger.airflows().await.unwrap().remove(0).0;
    assert_eq!(before, Report::answered(None, "main", "http://airflow.example".into(), &second, vec![]));
    let url = "http://airflow.example".to_owned();
    let away = Report::unreachable(Some(&before), "main", url, minute(3), "connection refused".into());
    world.ledger.note_airflow(&world.leadership, &away, &Judgement::default()).await.unwrap();
    assert_eq!(world.ledger.airflows().await.unwrap().remove(0).0, away);
    assert_eq!((away.reach, world.parts().await), (Reach::Unreachable, remembered));

    world.ledger.forget_airflow(&world.leadership, "main").await.unwrap();
    assert!(world.ledger.airflows().await.unwrap().is_empty());
}

async fn parts_that_are_gone_go_with_the_retention_and_the_others_stay(world: World) {
    let known = world.note(&[], &look(minute(0), vec![job(1, minute(0)), job(2, minute(0))])).await;
    let known = world.note(&known, &look(minute(1), vec![job(2, minute(1))])).await;
    let hour = Duration::from_hours(1);
    world.ledger.retain(&world.leadership, hour).await.unwrap();
    assert_eq!(world.parts().await.len(), 2);
    world.clock.advance(SignedDuration::from_mins(62));
    world.note(&known[1..], &look(minute(62), vec![job(2, minute(62))])).await;
    world.ledger.retain(&world.leadership, hour).await.unwrap();
    let left: Vec<_> = world.parts().await.iter().map(|part| part.job).collect();
    assert_eq!(left, [Some(2)], "the one that is there stays as long as its Airflow is asked");
    world.clock.advance(SignedDuration::from_hours(9));
    world.ledger.retain(&world.leadership, hour).await.unwrap();
    assert!(world.parts().await.is_empty(), "an Airflow that nobody asks any more is forgotten");
    assert!(world.ledger.airflows().await.unwrap().is_empty());
}

async fn of_those_that_are_gone_the_last_are_shown(world: World) {
    let jobs: Vec<_> = (1..=60).map(|id| job(id, minute(0))).collect();
    let known = world.note(&[], &look(minute(0), jobs)).await;
    assert_eq!(known.len(), 60);
    let left = world.note(&known, &look(minute(1), vec![job(3, minute(1))])).await;
    let shown: Vec<_> = left.iter().filter_map(|part| part.job).collect();
    let expected: Vec<_> = [3].into_iter().chain(11..=60).collect();
    assert_eq!(shown, expected);
}

async fn a_leader_that_was_replaced_notes_nothing(world: World) {
    let look = look(minute(0), vec![job(1, minute(0))]);
    let judgement = judge(&[], &look, Duration::from_secs(30));
    let report = Report::answered(None, "main", "http://airflow.example".into(), &look, vec![]);
    world.ledger.take_lead("another").await.unwrap();
    let noted = world.ledger.note_airflow(&world.leadership, &report, &judgement).await;
    assert!(matches!(noted, Err(StoreError::Fenced { .. })));
    let forgotten = world.ledger.forget_airflow(&world.leadership, "main").await;
    assert!(matches!(forgotten, Err(StoreError::Fenced { .. })));
    assert!(world.parts().await.is_empty());
}

async fn a_report_and_its_parts_are_of_the_same_look(world: World) {
    let well = look(minute(1), vec![job(1, minute(1))]);
    let late = look(minute(1), vec![job(1, minute(0))]);
    let known = world.note(&[], &well).await;
    let noting = async {
        for turn in 0..50 {
            world.note(&known, if turn % 2 == 0 { &late } else { &well }).await;
        }
    };
    let reading = async {
        loop {
            let (report, components) = world.ledger.airflows().await.unwrap().remove(0);
            let late = components.iter().filter(|component| component.state == ComponentState::Stale).count();
            assert_eq!(report.warnings.len(), late, "{report:?} {components:?}");
        }
    };
    tokio::select! {
        () = noting => {}
        () = reading => {}
    }
}
