//! Reloading: what a source proposes is judged, equipped and proposed to the board, or refused.
//!
//! One task does this for as long as the process lives, so that sets come one after the other and the
//! last one wins. It does not apply them: where this member leads, its term does (`term`), in step with
//! the ledger. A set is refused as a whole, with all its faults; the set before stays in force. One that only
//! lacks a file on this host is kept and tried again: the file may be on its way.

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
use crate::config::model::DefinitionsSource;
use crate::config::{Config, Fault, Faults};
use crate::definitions::changes::{Changes, keep_equal, main_sections, same_places};
use crate::definitions::reloads::{Answer, Applied, Look, Proposal, RefusedSet, State};
use crate::definitions::{Provenance, Refusal, Set};
use crate::domain::edit::names_passed_on;
use crate::domain::schedule::{Schedule, ScheduleName, Trigger};
use crate::metrics;

/// How soon a set that lacks a file is tried again for the first time; the pauses double.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// How long the pauses become.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long someone who asked waits for the ledger to take a set.
const PATIENCE: Duration = Duration::from_secs(20);

/// The newest set, refused, and since when.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) since: Instant,
    shown: RefusedSet,
}

/// A set that lacks something on this host which may still come.
struct Lacking {
    set: Set,
    /// How often it was tried again.
    tried: u32,
    next: Instant,
}

impl Lacking {
    fn new(set: Set, tried: u32) -> Self {
        Self { set, tried, next: Instant::now() + pause_before(tried) }
    }
}

/// How long to wait before a set that lacks something is tried again, after it was `tried` again so often.
fn pause_before(tried: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tried.min(8)).min(LONGEST_PAUSE)
}

/// Judges what is proposed until the process ends, and again what lacks something.
pub(super) async fn run(member: Arc<Member>, mut proposals: mpsc::Receiver<Proposal>) {
    let ending = member.lifecycle.ending().clone();
    let mut number = member.board.now().number;
    let mut lacking: Option<Lacking> = None;
    loop {
        let again = lacking.as_ref().map(|lacking| lacking.next);
        tokio::select! {
            () = ending.cancelled() => return,
            proposal = proposals.recv() => {
                let Some(Proposal { candidate, replies }) = proposal else { return };
                lacking = match candidate {
                    Some(Ok(set)) => take(&member, set, replies, &mut number).map(|set| Lacking::new(set, 0)),
                    Some(Err(refusal)) => {
                        refuse(&member, &refusal, replies);
                        None
                    }
                    None => {
                        answer_as_it_stands(&member, replies);
                        lacking
                    }
                };
            }
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                let Some(Lacking { set, tried, .. }) = lacking.take() else { continue };
                lacking = take(&member, set, Vec::new(), &mut number).map(|set| Lacking::new(set, tried + 1));
            }
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
pub(super) async fn heed_main_file(
    member: Arc<Member>,
    mut found: mpsc::Receiver<Result<Config, Faults>>,
    looks: mpsc::Sender<Look>,
) {
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
        let refuses = member.refused.borrow().is_some();
        if refuses && looks.send(Look::default()).await.is_err() {
            break;
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

/// A set that its source has found no fault with. It comes back where it lacks something that may still come.
fn take(member: &Arc<Member>, set: Set, replies: Vec<oneshot::Sender<Answer>>, number: &mut u64) -> Option<Set> {
    let before = Arc::clone(&member.board.wanted().borrow());
    tell_sections(member, main_sections(&member.main, &set.config));
    if is_same(&set.provenance, &before.set.provenance) && same_places(&set.config, &before.config) {
        if member.refused.send_replace(None).is_some() {
            tracing::info!(version = set.provenance.version, "the definitions are again those in force");
        }
        answer_when_in_force(member, &before, &Changes::default(), replies);
        return None;
    }
    match source_of(member.main.server.definitions, set.config.server.definitions) {
        SourceNow::AsBefore => {}
        SourceNow::Left => {
            tracing::warn!(
                hint = "push them with `flowkeeper config push FILE`, if that is not done yet, and restart flowkeeper",
                "the main file says now that the definitions are in ZooKeeper: those in force stay until the restart"
            );
            member.refused.send_replace(None);
            answer_when_in_force(member, &before, &Changes::default(), replies);
            return None;
        }
        SourceNow::LeftBehind => {
            let fault = Fault::without_place(
                set.config.file.display().to_string(),
                "server.definitions",
                "the main file says now that the definitions are files, and this process has them from ZooKeeper",
                "restart flowkeeper, or write definitions = \"zookeeper\" again",
            );
            let faults = Faults { file: set.config.file.clone(), faults: vec![fault] };
            refuse(member, &Refusal { provenance: set.provenance, faults }, replies);
            return None;
        }
    }
    let mut equipped = match equip(&set, &before, &member.main, &member.workshop) {
        Ok(equipped) => equipped,
        Err(lack) => {
            let Lack { fault, lasts } = *lack;
            let faults = Faults { file: set.config.file.clone(), faults: vec![fault] };
            refuse(member, &Refusal { provenance: set.provenance.clone(), faults }, replies);
            return (!lasts).then_some(set);
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
    None
}

/// Where definitions are by the main file, beside where the process has them from. That is read at the start
/// only.
#[derive(Debug, PartialEq, Eq)]
enum SourceNow {
    /// In the same place.
    AsBefore,
    /// In `ZooKeeper`: what the files still define, often nothing, is not meant to be in force.
    Left,
    /// In files: a set from `ZooKeeper` would be mixed with what the main file defines.
    LeftBehind,
}

fn source_of(at_the_start: DefinitionsSource, now: DefinitionsSource) -> SourceNow {
    match (at_the_start, now) {
        (DefinitionsSource::File, DefinitionsSource::ZooKeeper) => SourceNow::Left,
        (DefinitionsSource::ZooKeeper, DefinitionsSource::File) => SourceNow::LeftBehind,
        _ => SourceNow::AsBefore,
    }
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
    let before = member.refused.borrow().clone();
    if !before.as_ref().is_some_and(|before| says_the_same(&before.refusal, refusal)) {
        metrics::definitions_reloaded("refused");
        tracing::error!(
            source = refusal.provenance.source.as_str(),
            faults = refusal.faults.faults.len(),
            hint = "correct them; `GET /api/v1/config` shows all of them",
            "the newest definitions are refused, and those before stay in force: {}",
            refusal.summary()
        );
        let faults = refusal.faults.faults.clone();
        let shown = RefusedSet { provenance: refusal.provenance.clone(), since: member.clock.now(), faults };
        // Who leaves the lead to others does so also while one bad set follows another.
        let since = before.map_or_else(Instant::now, |before| before.since);
        member.refused.send_replace(Some(Refused { refusal: refusal.clone(), since, shown }));
    }
    for reply in replies {
        // Who asked may not wait any more.
        drop(reply.send(Answer::Refused(Box::new(refusal.clone()))));
    }
}

/// Answers those who asked whether there is something new, and there is not.
fn answer_as_it_stands(member: &Arc<Member>, replies: Vec<oneshot::Sender<Answer>>) {
    let refused = member.refused.borrow().clone();
    if let Some(refused) = refused {
        refuse(member, &refused.refusal, replies);
    } else {
        let wanted = Arc::clone(&member.board.wanted().borrow());
        answer_when_in_force(member, &wanted, &Changes::default(), replies);
    }
}

/// Whether two refusals are of the same set, for the same reasons.
fn says_the_same(one: &Refusal, other: &Refusal) -> bool {
    let which = |refusal: &Refusal| (refusal.provenance.version.clone(), refusal.provenance.zookeeper_version);
    which(one) == which(other) && one.faults == other.faults
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

/// What a set lacks on this host.
struct Lack {
    fault: Fault,
    /// Whether it will be lacking for as long as the process lives.
    lasts: bool,
}

/// Gives a set everything that it needs, or says what it lacks.
fn equip(set: &Set, before: &InForce, main: &Config, workshop: &Workshop) -> Result<InForce, Box<Lack>> {
    let without_home = main.zookeeper.is_none() && set.config.zookeeper.is_some();
    if without_home && let Some(fault) = needs_a_home(&set.config) {
        return Err(Box::new(Lack { fault, lasts: true }));
    }
    let config = Config {
        server: main.server.clone(),
        log: main.log,
        store: main.store.clone(),
        zookeeper: main.zookeeper.clone(),
        schedules: keep_equal(&before.schedules, &with_names_passed_on(&before.schedules, &set.config.schedules)),
        ..(*set.config).clone()
    };
    let resources = Resources::equip(&config, &before.resources, workshop)
        .map_err(|error| Box::new(Lack { fault: fault_of(&error, &set.config.file), lasts: lasts(&error) }))?;
    Ok(InForce {
        number: 0,
        schedules: Arc::new(config.schedules.clone()),
        config: Arc::new(config),
        resources,
        set: set.clone(),
    })
}

/// The schedules of a set, with what they were called in the set before where that tells more.
fn with_names_passed_on(before: &[Arc<Schedule>], after: &[Arc<Schedule>]) -> Vec<Arc<Schedule>> {
    fn names(schedules: &[Arc<Schedule>]) -> impl Iterator<Item = (&ScheduleName, &[ScheduleName])> + Clone {
        schedules.iter().map(|schedule| (&schedule.name, &*schedule.was))
    }
    let mut passed_on = names_passed_on(names(before), names(after));
    let with_all = |schedule: &Arc<Schedule>| match passed_on.remove(&schedule.name) {
        Some(was) => Arc::new(Schedule { was: [&*schedule.was, &*was].concat(), ..(**schedule).clone() }),
        None => Arc::clone(schedule),
    };
    after.iter().map(with_all).collect()
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

/// Whether it helps nothing to try again.
fn lasts(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Secret { lasts: true, .. })
}

/// What a client or a session lacks, as a fault of the configuration.
fn fault_of(error: &ConnectError, file: &Path) -> Fault {
    let (key, hint) = match error {
        ConnectError::Secret { key, lasts: true, .. } => {
            (key.clone(), "set the variable in the environment of this member, and restart it")
        }
        ConnectError::Secret { key, lasts: false, .. } => {
            (key.clone(), "put the file there: this member looks again by itself, every 30 s at least")
        }
        ConnectError::Airflow { name, .. } => (
            format!("airflow.{name}"),
            "correct this section or the file that it names: this member looks again by itself, every 30 s at least",
        ),
    };
    Fault::without_place(file.display().to_string(), key, format!("failed to {error}"), hint)
}

/// Whether a member leaves the lead to others, since it cannot take the newest definitions and they can. Who
/// stands by does so at once; who `leads`, when it has been so for longer than a bad file takes to reach
/// everybody. Where nobody can take them, somebody leads with those before.
pub(super) fn gives_way(refused_for: Option<Duration>, others_take_it: bool, leads: bool) -> bool {
    let patience = if leads { REFUSAL_PATIENCE } else { Duration::ZERO };
    others_take_it && refused_for.is_some_and(|refused_for| refused_for >= patience)
}

/// How long a leader whose newest definitions are refused keeps its place in the queue.
pub(super) const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::definitions::Source;

    #[test]
    fn what_lacks_a_file_is_tried_again_in_pauses_that_grow_to_half_a_minute() {
        for (tried, seconds) in [(0, 2), (1, 4), (2, 8), (3, 16), (4, 30), (5, 30), (u32::MAX, 30)] {
            assert_eq!(pause_before(tried), Duration::from_secs(seconds), "{tried}");
        }
    }

    #[test]
    fn a_newer_set_with_the_same_faults_is_another_refusal() {
        let refusal = |version: &str, zookeeper_version, message: &str, at| Refusal {
            provenance: crate::definitions::Provenance {
                source: Source::Zookeeper,
                version: version.into(),
                zookeeper_version: Some(zookeeper_version),
                author: None,
                message: None,
                at: Timestamp::from_second(at).unwrap(),
            },
            faults: Faults { file: "f".into(), faults: vec![Fault::without_place("f", "k", message, "")] },
        };
        let known = refusal("a", 1, "x", 1);
        for (case, other, expected) in [
            ("read again", refusal("a", 1, "x", 2), true),
            ("another text", refusal("b", 1, "x", 1), false),
            ("pushed once more", refusal("a", 2, "x", 1), false),
            ("another fault", refusal("a", 1, "y", 1), false),
        ] {
            assert_eq!(says_the_same(&known, &other), expected, "{case}");
        }
    }

    #[test]
    fn where_definitions_come_from_is_read_at_the_start_only() {
        let (file, zookeeper) = (DefinitionsSource::File, DefinitionsSource::ZooKeeper);
        for (at_the_start, now, expected) in [
            (file, file, SourceNow::AsBefore),
            (zookeeper, zookeeper, SourceNow::AsBefore),
            (file, zookeeper, SourceNow::Left),
            (zookeeper, file, SourceNow::LeftBehind),
        ] {
            assert_eq!(source_of(at_the_start, now), expected, "{at_the_start:?} {now:?}");
        }
    }

    #[test]
    fn who_cannot_take_the_newest_definitions_gives_way_to_those_who_can() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (case, refused_for, others_take_it, leads, expected) in [
            ("all is well", None, true, true, false),
            ("refused a moment ago: the others are about to see it", seconds(4), true, true, false),
            ("the others have taken it", seconds(5), true, true, true),
            ("nobody takes it, or nobody else is there", seconds(60), false, true, false),
            ("stands by, and all is well", None, true, false, false),
            ("stands by, and has just read what it refuses", seconds(0), true, false, true),
            ("stands by, and nobody takes it", seconds(60), false, false, false),
        ] {
            assert_eq!(gives_way(refused_for, others_take_it, leads), expected, "{case}");
        }
    }
}
