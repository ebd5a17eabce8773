//! Which parts a term has for a set of definitions, and what each of them depends on.
//!
//! A loop that is for one Airflow, one ensemble or one schedule is declared here. It is given what it
//! depends on and is begun anew when one of that is another; parts that are for all definitions together
//! follow them by themselves (`term`).

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::connect::Watched;
use super::crew::Crew;
use super::in_force::InForce;
use super::parts::{Key, Needs, Part};
use super::resources::{KeptAirflow, KeptEnsemble};
use super::term::Work;
use super::witness::AirflowWitness;
use crate::components;
use crate::domain::schedule::Schedule;
use crate::health::rounds;
use crate::monitor;
use crate::store::StoreError;
use crate::sync;
use crate::triggers::gate::Gates;
use crate::triggers::znode::{Announcements, Handover, ZnodeTriggerParts};
use crate::triggers::{consume, lineage, znode};

/// Everything that is to run for `set`.
pub(super) fn declare(work: &Work, set: &InForce) -> Vec<Part> {
    let Work { crew, gates, reconcile, handover, announcements, .. } = work;
    let mut parts = Vec::new();
    for (name, airflow) in &set.resources.airflows {
        parts.extend(monitor(crew, set, name, airflow, reconcile));
        parts.extend(airflow_components(crew, set, name, airflow));
    }
    // Nothing is compared in a session that the keeper of its ensemble has not cleared.
    parts.extend(set.resources.ensembles.values().map(|ensemble| lineage_keeper(crew, ensemble)));
    for (schedule, name) in set.znode_schedules() {
        let ensemble = set.resources.ensembles.get(name);
        let is_home = name.is_none();
        parts.extend(
            ensemble.map(|ensemble| znode_trigger(crew, schedule, ensemble, is_home, gates, (handover, announcements))),
        );
    }
    parts.extend(set.resources.watched.iter().map(|watched| rounds(crew, watched, gates)));
    if !crew.member.shadow {
        let watched: BTreeSet<_> = set.znode_schedules().map(|(_, ensemble)| ensemble).collect();
        let ensembles = watched.into_iter().filter_map(|name| set.resources.ensembles.get(name));
        parts.extend(ensembles.map(|ensemble| consumer(crew, ensemble)));
        parts.extend(syncs(work, set));
    }
    parts
}

fn monitor(
    crew: &Crew,
    set: &InForce,
    name: &str,
    airflow: &KeptAirflow,
    reconcile: &watch::Sender<u64>,
) -> Option<Part> {
    let keep = set.config.airflows.get(name)?.monitor.clone();
    let needs = vec![Needs::Incarnation(airflow.incarnation), Needs::Text(format!("{:?}", keep.patterns))];
    let work = monitor::run(monitor::Parts {
        airflow: airflow.client.clone(),
        ledger: crew.member.ledger.clone(),
        leadership: crew.leadership.clone(),
        keep,
        clock: crew.member.clock.clone(),
        reconcile: reconcile.subscribe(),
    });
    Some(Part::cut(Key::new("monitor", name), needs, work))
}

fn airflow_components(crew: &Crew, set: &InForce, name: &str, airflow: &KeptAirflow) -> Option<Part> {
    let settings = set.config.airflows.get(name)?;
    let (interval, heartbeat_threshold) = (settings.health_interval, settings.heartbeat_threshold);
    let needs =
        vec![Needs::Incarnation(airflow.incarnation), Needs::Text(format!("{interval:?} {heartbeat_threshold:?}"))];
    let work = components::run(components::Parts {
        airflow: airflow.client.clone(),
        interval,
        heartbeat_threshold,
        ledger: crew.member.ledger.clone(),
        leadership: crew.leadership.clone(),
        publisher: crew.publisher.clone(),
        clock: crew.member.clock.clone(),
    });
    Some(Part::cut(Key::new("components of Airflow", name), needs, work))
}

fn lineage_keeper(crew: &Crew, kept: &KeptEnsemble) -> Part {
    let (ledger, leadership) = (crew.member.ledger.clone(), crew.leadership.clone());
    let keeper = lineage::Keeper::new(kept.lineage.clone(), kept.ensemble.clone(), ledger, leadership);
    let needs = vec![Needs::Incarnation(kept.incarnation)];
    Part::asked(key("keeper of the history", kept), needs, |end| keeper.run(end))
}

fn znode_trigger(
    crew: &Crew,
    schedule: &Arc<Schedule>,
    kept: &KeptEnsemble,
    is_home: bool,
    gates: &watch::Sender<Gates>,
    (handover, announcements): (&Handover, &Announcements),
) -> Part {
    let parts = ZnodeTriggerParts {
        schedule: Arc::clone(schedule),
        ensemble: kept.ensemble.clone(),
        own_root: is_home.then(|| crew.member.root()).flatten(),
        ledger: crew.member.ledger.clone(),
        leadership: crew.leadership.clone(),
        gates: gates.subscribe(),
        clock: crew.member.clock.clone(),
        status: crew.member.status.clone(),
        lineage: kept.lineage.clone(),
        handover: handover.clone(),
        announcements: announcements.clone(),
    };
    let now = crew.ending.clone();
    let needs = vec![Needs::Schedule(Arc::clone(schedule)), Needs::Incarnation(kept.incarnation)];
    Part::asked(Key::new("znode trigger", schedule.name.as_str()), needs, |edit| async move {
        znode::run(parts, znode::End { edit, now }).await;
        Ok::<(), StoreError>(())
    })
}

/// The schedules that listen are read anew for each transition.
fn rounds(crew: &Crew, watched: &Watched, gates: &watch::Sender<Gates>) -> Part {
    let member = &crew.member;
    let work = rounds::run(rounds::Parts {
        target: Arc::clone(&watched.target),
        interval: watched.interval,
        ledger: member.ledger.clone(),
        leadership: crew.leadership.clone(),
        schedules: member.board.schedules(),
        gates: gates.subscribe(),
        status: member.status.clone(),
        witness: AirflowWitness::new(member.board.airflows()),
        latest: member.inspections.clone(),
        clock: member.clock.clone(),
    });
    Part::cut(Key::new("health", &watched.target.name), vec![Needs::Text(watched.identity.clone())], work)
}

fn consumer(crew: &Crew, kept: &KeptEnsemble) -> Part {
    let (ledger, leadership) = (crew.member.ledger.clone(), crew.leadership.clone());
    let (ensemble, lineage) = (kept.ensemble.clone(), kept.lineage.clone());
    let needs = vec![Needs::Incarnation(kept.incarnation)];
    Part::asked(key("consumer of znodes", kept), needs, |end| async move {
        consume::run(ensemble, lineage, ledger, leadership, end).await;
        Ok::<(), StoreError>(())
    })
}

/// What keeps entries of Airflows in step with znodes. A shadow does not: it changes nothing outside.
fn syncs(work: &Work, set: &InForce) -> Vec<Part> {
    let Work { crew, places, turns, .. } = work;
    let resources = &set.resources;
    // The configuration was checked: a sync names only what there is, and needs the home ensemble.
    let declared = set.config.syncs.iter().filter_map(|definition| {
        let airflow = resources.airflows.get(&definition.airflow)?;
        let (ensemble, home) = (resources.ensembles.get(&definition.ensemble)?, resources.ensembles.get(&None)?);
        let configured = set.config.syncs_beside(definition);
        let needs_text = format!("{definition:?} {configured:?}");
        let parts = sync::keeper::Parts {
            definition: Arc::clone(definition),
            configured,
            ensemble: ensemble.ensemble.clone(),
            home: home.ensemble.clone(),
            root: crew.member.home()?.1,
            airflow: airflow.client.clone(),
            ledger: crew.member.ledger.clone(),
            leadership: crew.leadership.clone(),
            desks: crew.member.desks.clone(),
            lineage: ensemble.lineage.clone(),
            turns: turns.clone(),
            places: places.clone(),
        };
        let needs = vec![
            Needs::Incarnation(airflow.incarnation),
            Needs::Incarnation(ensemble.incarnation),
            Needs::Incarnation(home.incarnation),
            Needs::Text(needs_text),
        ];
        Some(Part::asked(Key::new("sync", &definition.name), needs, |end| sync::keeper::run(parts, end)))
    });
    declared.collect()
}

/// What a part is called that is for an ensemble; the home ensemble, which has no name, has an empty one.
fn key(kind: &'static str, kept: &KeptEnsemble) -> Key {
    Key::new(kind, kept.ensemble.name().map_or("", |name| name))
}
