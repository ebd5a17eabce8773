//! Reloading: what a source proposes is judged, equipped and proposed to the board, or refused.
//!
//! One task does this for as long as the process lives, so that sets come one after the other and the
//! last one wins. It does not apply them: where this member leads, its term does (`term`), in step with
//! the ledger. A set is refused as a whole, with all its faults; the set before stays in force.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::connect::ConnectError;
use super::in_force::InForce;
use super::member::Member;
use super::resources::{Resources, Workshop};
use crate::config::{Config, Fault, Faults};
use crate::definitions::changes::{Changes, keep_equal, main_sections};
use crate::definitions::reloads::{Answer, Applied, Look, Proposal, RefusedSet, State};
use crate::definitions::{Provenance, Refusal, Set};
use crate::domain::schedule::Trigger;
use crate::metrics;

/// How long someone who asked waits for the ledger to take a set.
const PATIENCE: Duration = Duration::from_secs(20);

/// The newest set, refused, and since when.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) since: Instant,
    shown: RefusedSet,
}

/// Judges what is proposed until the process ends.
pub(super) async fn run(member: Arc<Member>, mut proposals: mpsc::Receiver<Proposal>) {
    let ending = member.lifecycle.ending().clone();
    let mut number = member.board.now().number;
    while let Some(Some(Proposal { candidate, replies })) = ending.run_until_cancelled(proposals.recv()).await {
        match candidate {
            Ok(set) => take(&member, set, replies, &mut number),
            Err(refusal) => refuse(&member, &refusal, replies),
        }
    }
}

/// Asks the source to look at each SIGHUP, until the process ends.
pub(super) async fn heed_signals(looks: mpsc::Sender<Look>) -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    while hangups.recv().await.is_some() {
        tracing::info!("asked to read the definitions again (SIGHUP)");
        if looks.send(Look::default()).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Tells what is changed in the main file of a member whose definitions are in `ZooKeeper`, until the process
/// ends. The definitions in force stay as they are.
pub(super) async fn heed_main_file(member: Arc<Member>, mut found: mpsc::Receiver<Result<Config, Faults>>) {
    while let Some(main) = found.recv().await {
        match main {
            Ok(main) => tell_sections(&member, main_sections(&member.main, &main)),
            Err(faults) => tracing::warn!(
                faults = faults.faults.len(),
                hint = "correct it; `flowkeeper check` shows all of them",
                "the main file has become wrong: this member goes on, and could neither start nor take other \
                 definitions with it: {faults}"
            ),
        }
        // What was refused with the one before may be taken with this one.
        if let Some(znode) = member.znode.as_ref().filter(|_| member.refused.borrow().is_some()) {
            znode.again.notify_one();
        }
    }
}

/// Keeps what is told of the definitions up to date: to the API and to metrics. The herald tells the other
/// members.
pub(super) async fn tell(member: Arc<Member>, state: watch::Sender<Arc<State>>) {
    let (mut in_force, mut wanted) = (member.board.in_force(), member.board.wanted());
    let (mut refused, mut restart) = (member.refused.subscribe(), member.restart.subscribe());
    loop {
        let (set, newest) = (Arc::clone(&in_force.borrow_and_update()), Arc::clone(&wanted.borrow_and_update()));
        let refusal = refused.borrow_and_update().clone();
        restart.mark_unchanged();
        metrics::definitions_refused(refusal.is_some());
        state.send_replace(Arc::new(state_of(&member, &set, &newest, refusal.as_ref())));
        // The senders live as long as the member.
        tokio::select! {
            _ = in_force.changed() => {}
            _ = wanted.changed() => {}
            _ = refused.changed() => {}
            _ = restart.changed() => {}
        }
    }
}

/// How the definitions stand now.
pub(super) fn state_of(member: &Member, set: &InForce, newest: &InForce, refused: Option<&Refused>) -> State {
    State {
        in_force: set.set.provenance.clone(),
        since: member.board.since(),
        schedules: set.schedules.len(),
        airflows: set.config.airflows.len(),
        ensembles: set.config.ensembles.len(),
        warnings: set.set.warnings.clone(),
        restart: member.restart.borrow().clone(),
        refused: refused.map(|refused| refused.shown.clone()),
        applying: (newest.number != set.number).then(|| newest.set.provenance.clone()),
    }
}

/// The first set of a process. `before` may have some of what it needs.
pub(super) fn first(set: Set, before: &Resources, workshop: &Workshop) -> Result<InForce, ConnectError> {
    Ok(InForce {
        number: 0,
        resources: Resources::equip(&set.config, before, workshop)?,
        config: Arc::clone(&set.config),
        schedules: Arc::new(set.config.schedules.clone()),
        set,
    })
}

/// The same of a set that another may stand in for.
pub(super) fn first_or_refusal(set: Set, before: &Resources, workshop: &Workshop) -> Result<InForce, Box<Refusal>> {
    let (provenance, file) = (set.provenance.clone(), set.config.file.clone());
    first(set, before, workshop).map_err(|error| {
        let faults = vec![fault_of(&error, &file)];
        Box::new(Refusal { provenance, faults: Faults { file, faults } })
    })
}

/// A set that its source has found no fault with.
fn take(member: &Arc<Member>, set: Set, replies: Vec<oneshot::Sender<Answer>>, number: &mut u64) {
    let before = Arc::clone(&member.board.wanted().borrow());
    tell_sections(member, main_sections(&member.main, &set.config));
    if is_same(&set.provenance, &before.set.provenance) {
        if member.refused.send_replace(None).is_some() {
            tracing::info!(version = set.provenance.version, "the definitions are again those in force");
        }
        return answer_when_in_force(member, &before, &Changes::default(), replies);
    }
    let mut equipped = match equip(&set, &before, &member.main, &member.workshop) {
        Ok(equipped) => equipped,
        Err(faults) => {
            let faults = Faults { file: set.config.file.clone(), faults };
            return refuse(member, &Refusal { provenance: set.provenance, faults }, replies);
        }
    };
    *number += 1;
    equipped.number = *number;
    let equipped = Arc::new(equipped);
    for warning in equipped.set.warnings.iter().filter(|warning| !before.set.warnings.contains(warning)) {
        let Fault { file, line, key, hint, message, .. } = warning;
        tracing::warn!(file, line, key, hint, "the definitions are taken, but: {message}");
    }
    member.refused.send_replace(None);
    member.board.propose(&equipped, member.clock.now());
    metrics::definitions_reloaded("taken");
    let changes = Changes::between(&before.schedules, &equipped.schedules);
    answer_when_in_force(member, &equipped, &changes, replies);
}

/// Whether two are the same set from the same place. The time of a file's reading says nothing.
fn is_same(one: &Provenance, other: &Provenance) -> bool {
    let which = |set: &Provenance| (set.version.clone(), set.source, set.zookeeper_version);
    which(one) == which(other)
}

/// Tells which sections of the main file need a restart, if that is news.
fn tell_sections(member: &Member, sections: Vec<String>) {
    if !sections.is_empty() && *member.restart.borrow() != sections {
        tracing::warn!(
            sections = sections.join(", "),
            hint = "restart flowkeeper to apply them",
            "sections of the main file were changed that are read at the start only; they stay as they were"
        );
    }
    member.restart.send_if_modified(|known| {
        let news = *known != sections;
        *known = sections;
        news
    });
}

/// A set that cannot be taken.
pub(super) fn refuse(member: &Member, refusal: &Refusal, replies: Vec<oneshot::Sender<Answer>>) {
    let known = member.refused.borrow().as_ref().is_some_and(|known| known.refusal.faults == refusal.faults);
    if !known {
        metrics::definitions_reloaded("refused");
        tracing::error!(
            source = refusal.provenance.source.as_str(),
            faults = refusal.faults.faults.len(),
            hint = "correct them; `GET /api/v1/config` shows all of them",
            "the newest definitions are refused, and those before stay in force: {}",
            refusal.summary()
        );
        let since = member.clock.now();
        let faults = refusal.faults.faults.clone();
        let shown = RefusedSet { provenance: refusal.provenance.clone(), since, faults };
        member.refused.send_replace(Some(Refused { refusal: refusal.clone(), since: Instant::now(), shown }));
    }
    for reply in replies {
        // Who asked may not wait any more.
        drop(reply.send(Answer::Refused(Box::new(refusal.clone()))));
    }
}

/// Answers once the set, or one after it, is in force.
fn answer_when_in_force(
    member: &Arc<Member>,
    set: &Arc<InForce>,
    changes: &Changes,
    replies: Vec<oneshot::Sender<Answer>>,
) {
    if replies.is_empty() {
        return;
    }
    let (mut in_force, number) = (member.board.in_force(), set.number);
    let applied = Applied {
        version_before: member.board.now().set.provenance.version.clone(),
        version: set.set.provenance.version.clone(),
        changes: changes.clone(),
        warnings: set.set.warnings.clone(),
        restart: member.restart.borrow().clone(),
    };
    tokio::spawn(async move {
        let waited = tokio::time::timeout(PATIENCE, in_force.wait_for(|now| now.number >= number)).await;
        let answer = match waited {
            Ok(Ok(_)) => Answer::InForce(applied),
            Ok(Err(_)) => Answer::Waits("this member is about to end".to_owned()),
            Err(_) => Answer::Waits("the ledger has not taken them yet".to_owned()),
        };
        for reply in replies {
            // Who asked may not wait any more.
            drop(reply.send(answer.clone()));
        }
    });
}

/// Gives a set everything that it needs, or says what it lacks.
fn equip(set: &Set, before: &InForce, main: &Config, workshop: &Workshop) -> Result<InForce, Vec<Fault>> {
    let without_home = main.zookeeper.is_none() && set.config.zookeeper.is_some();
    if without_home && let Some(fault) = needs_a_home(&set.config) {
        return Err(vec![fault]);
    }
    let config = Config {
        server: main.server.clone(),
        log: main.log,
        store: main.store.clone(),
        zookeeper: main.zookeeper.clone(),
        schedules: keep_equal(&before.schedules, &set.config.schedules),
        ..(*set.config).clone()
    };
    let resources = Resources::equip(&config, &before.resources, workshop)
        .map_err(|error| vec![fault_of(&error, &set.config.file)])?;
    Ok(InForce {
        number: 0,
        schedules: Arc::new(config.schedules.clone()),
        config: Arc::new(config),
        resources,
        set: set.clone(),
    })
}

/// A schedule that works in a home ensemble, which this process does not have.
fn needs_a_home(config: &Config) -> Option<Fault> {
    let needs = config.schedules.iter().find(|schedule| {
        schedule.lock.is_some() || matches!(&schedule.trigger, Trigger::Znode(trigger) if trigger.ensemble.is_none())
    })?;
    Some(Fault::without_place(
        config.file.display().to_string(),
        "zookeeper",
        format!("the schedule \"{}\" needs the home ensemble, which was not there at the start", needs.name),
        "restart flowkeeper: [zookeeper] is read at the start",
    ))
}

/// What a client or a session lacks, as a fault of the configuration.
fn fault_of(error: &ConnectError, file: &Path) -> Fault {
    let (key, hint) = match error {
        ConnectError::Secret { key, .. } => {
            (key.clone(), "set the variable or create the file that the configuration names")
        }
        ConnectError::Airflow { name, .. } => (format!("airflow.{name}"), "correct this section"),
    };
    Fault::without_place(file.display().to_string(), key, format!("failed to {error}"), hint)
}

/// Whether a member leaves the lead to others, since it cannot take the newest definitions: those can, and
/// it has been so for longer than a bad file takes to reach everybody.
pub(super) fn gives_way(refused_for: Option<Duration>, others_take_it: bool) -> bool {
    others_take_it && refused_for.is_some_and(|refused_for| refused_for >= REFUSAL_PATIENCE)
}

/// How long a member whose newest definitions are refused keeps its place in the queue.
pub(super) const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_take_the_newest_definitions_gives_way_to_those_who_can() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (case, refused_for, others_take_it, expected) in [
            ("all is well", None, true, false),
            ("refused a moment ago: the others are about to see it", seconds(4), true, false),
            ("the others have taken it", seconds(5), true, true),
            ("nobody takes it, or nobody else is there", seconds(60), false, false),
        ] {
            assert_eq!(gives_way(refused_for, others_take_it), expected, "{case}");
        }
    }
}
