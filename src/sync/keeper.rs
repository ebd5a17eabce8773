//! The loop of one sync: waits for a hint, for its interval or for an operator, compares, and carries out
//! what is planned.
//!
//! ZooKeeper away: nothing changes, since nothing can be read. Airflow away: tried again with growing
//! pauses. Both are told by the report in the ledger, which every member reads.
//!
//! Whoever ends the loop waits for it, as a reload does. So reading is given up at once, however long Airflow
//! or ZooKeeper stay silent, and writing soon after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apply::{Applied, Applier};
use super::desk::{Desks, Order};
use super::key;
use super::pass::{self, Look, Options, Parties, PassError};
use super::report::{self, PassReport};
use super::resting::Resting;
use super::timing::Timing;
use super::turns::{Turn, Turns};
use crate::airflow::Airflow;
use crate::airflow::entries::Care;
use crate::airflow::places::Places;
use crate::domain::schedule::WatchScope;
use crate::domain::sync::definition::SyncDefinition;
use crate::domain::sync::digest::Digests;
use crate::domain::sync::plan::{Doubt, Plan, Step};
use crate::metrics;
use crate::store::{Leadership, Ledger, StoreError};
use crate::triggers::lineage::{Lineage, Standing};
use crate::zookeeper::{Ensemble, Interest, Session};

/// How often znodes are compared where the servers tell of no changes (ZooKeeper 3.5).
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(30);

/// How long a comparison waits until it is known whose history an ensemble has.
const LINEAGE_PATIENCE: Duration = Duration::from_secs(5);

/// What a sync works with.
pub struct Parts {
    /// What it does.
    pub definition: Arc<SyncDefinition>,
    /// The names of the syncs that write into the same collection.
    pub configured: BTreeSet<Arc<str>>,
    /// The ensemble that its znodes are in.
    pub ensemble: Ensemble,
    /// The home ensemble, which has the key of the digests.
    pub home: Ensemble,
    /// The root of flowkeeper's znodes there.
    pub root: Arc<str>,
    /// The Airflow that is kept in step.
    pub airflow: Airflow,
    /// The ledger.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// Where operators hand in orders.
    pub desks: Desks,
    /// Whether that ensemble has the history that the ledger remembers.
    pub lineage: Lineage,
    /// Where syncs that write into the same collection take turns.
    pub turns: Turns,
    /// Where the submitter is asked for a place for each request that changes something.
    pub places: Places,
}

/// What wakes the loop.
enum Event {
    Hint,
    Due,
    Order(Order),
}

/// Keeps entries in step until the term ends.
pub async fn run(parts: Parts, ending: CancellationToken) -> Result<(), StoreError> {
    let interest = match parts.definition.scope {
        WatchScope::Node => Interest::Node,
        WatchScope::Children => Interest::Children,
        WatchScope::Subtree => Interest::Subtree,
    };
    let subscription = parts.ensemble.subscribe(Arc::clone(&parts.definition.path), interest);
    let mut desk = parts.desks.open(&parts.definition.name);
    let mut timing = Timing::new(Instant::now());
    let mut known_session = None;
    let turn = parts.turns.join(&parts.definition);
    let incarnation = report::last(&parts.ledger, &parts.definition.name).await?.and_then(|last| last.incarnation);
    let mut keeper = Keeper {
        parts,
        ending: ending.clone(),
        turn,
        digests: None,
        incarnation,
        missing: BTreeMap::new(),
        resting: Resting::default(),
        has_failed: false,
        told: None,
    };
    let ended = loop {
        let event = tokio::select! {
            biased;
            () = ending.cancelled() => break Ok(()),
            () = keeper.parts.leadership.lost().cancelled() => break Ok(()),
            Some(order) = desk.orders.recv() => Event::Order(order),
            () = subscription.changed() => Event::Hint,
            () = tokio::time::sleep_until(timing.due()) => Event::Due,
        };
        let (options, reply) = match event {
            Event::Hint => {
                let touched = subscription.take(usize::MAX);
                let session = subscription.arming().map(|arming| arming.session.number());
                if session.is_some() && session != known_session {
                    timing.connected(Instant::now());
                } else if touched.overflowed || !touched.paths.is_empty() {
                    timing.hint(Instant::now());
                }
                known_session = session;
                continue;
            }
            Event::Due => (Options::default(), None),
            Event::Order(order) => (order.options, Some(order.reply)),
        };
        timing.begin();
        let report = match keeper.compare(options, reply.is_some()).await {
            Ok(Some(report)) => report,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let interval = match subscription.arming() {
            Some(arming) if !arming.watched => keeper.parts.definition.interval.min(UNWATCHED_INTERVAL),
            _ => keeper.parts.definition.interval,
        };
        let interval = keeper.resting.next(Instant::now()).map_or(interval, |rested| interval.min(rested));
        match &report.error {
            None => timing.done(Instant::now(), interval),
            Some(_) => timing.failed(Instant::now(), interval),
        }
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            drop(reply.send(report));
        }
    };
    metrics::sync_ended(&keeper.parts.definition.name);
    ended
}

struct Keeper {
    parts: Parts,
    ending: CancellationToken,
    /// The turns of the syncs that write into the same collection.
    turn: Turn,
    /// Makes digests, with the session of the home ensemble that the key was read in.
    digests: Option<(u64, Digests)>,
    /// The incarnation of the znode in which everything that was written has been seen.
    incarnation: Option<String>,
    /// The keys that vanished with many others, and since when.
    missing: BTreeMap<String, Instant>,
    /// What Airflow did not take.
    resting: Resting,
    /// Airflow failed at the last request.
    has_failed: bool,
    /// What the log was told last.
    told: Option<String>,
}

impl Keeper {
    /// Compares, and carries out what is planned unless it is only to be looked at. What went wrong is in
    /// the report; an error is one of the ledger, and ends the loop. `None`: it is to end before it was
    /// through. Who is `is_asked` asks Airflow for what rests, too.
    async fn compare(&mut self, options: Options, is_asked: bool) -> Result<Option<PassReport>, StoreError> {
        let (ending, lost) = (self.ending.clone(), self.parts.leadership.lost().clone());
        let looked = tokio::select! {
            biased;
            () = ending.cancelled() => return Ok(None),
            () = lost.cancelled() => return Ok(None),
            looked = self.look(options, is_asked) => looked,
        };
        let mut report = match looked {
            Ok((look, _)) if options.dry_run => look.report(),
            Ok((look, _its_turn)) => {
                self.incarnation.clone_from(&look.incarnation);
                self.note_missing(&look.plan);
                let resting: BTreeSet<String> = look.faults().map(str::to_owned).collect();
                match self.applier().apply(look).await? {
                    Some(applied) => self.note_applied(applied, &resting),
                    None => return Ok(None),
                }
            }
            Err(PassError::Store(error)) => return Err(error),
            Err(error) => {
                PassReport { error: Some(format!("failed to {error}")), hint: error.hint(), ..PassReport::default() }
            }
        };
        report.incarnation.clone_from(&self.incarnation);
        if !options.dry_run {
            self.tell(&report);
            metrics::sync_compared(&self.parts.definition.name, &report.counts, report.error.is_none());
            // A report holds text, numbers and lists only.
            let json = serde_json::to_string(&report).unwrap_or_default();
            self.parts.ledger.note_sync_pass(&self.parts.leadership, &self.parts.definition.name, &json).await?;
        }
        Ok(Some(report))
    }

    /// Reads what there is, and plans; with the turn in which that may be carried out. May be given up at any
    /// point.
    async fn look(&mut self, options: Options, is_asked: bool) -> Result<(Look, OwnedMutexGuard<()>), PassError> {
        let session = self.session(&self.parts.ensemble)?;
        let digests = self.digests().await?;
        let is_proven = self.is_proven(&session).await;
        let parts = &self.parts;
        let interval = parts.definition.interval;
        let long = self.missing.iter().filter(|(_, since)| since.elapsed() >= interval);
        let still_missing = long.map(|(key, _)| key.clone()).collect();
        let resting = if is_asked { BTreeMap::new() } else { self.resting.now(Instant::now()) };
        let parties = Parties {
            definition: &parts.definition,
            configured: &parts.configured,
            session: &session,
            digests: &digests,
            airflow: &parts.airflow,
            ledger: Some(&parts.ledger),
            incarnation: self.incarnation.as_deref(),
            is_proven,
            still_missing: &still_missing,
            resting: &resting,
        };
        // Whoever waits long for ZooKeeper keeps nobody waiting.
        let wanted = pass::read(parties).await?;
        let its_turn = self.turn.take(&parts.configured).await;
        Ok((pass::compare(parties, wanted, options).await?, its_turn))
    }

    /// Whether the ensemble is known to have the history that the ledger remembers, in this session. Whoever
    /// finds that out is given a moment.
    async fn is_proven(&self, session: &Session) -> bool {
        let mut standing = self.parts.lineage.standing();
        let known = standing.wait_for(|standing| match standing {
            Standing::One { session: cleared, .. } => session.number() <= *cleared,
            Standing::Two(_) => true,
            Standing::Unchecked { .. } => false,
        });
        let known = tokio::time::timeout(LINEAGE_PATIENCE, known).await;
        matches!(known, Ok(Ok(standing)) if matches!(*standing, Standing::One { .. }))
    }

    /// Remembers since when each key is missing with many others.
    fn note_missing(&mut self, plan: &Plan) {
        let is_held = |key: &String| plan.steps.get(key) == Some(&Step::Held(Doubt::Many));
        self.missing.retain(|key, _| is_held(key));
        for key in plan.steps.keys().filter(|key| is_held(key)) {
            self.missing.entry(key.clone()).or_insert_with(Instant::now);
        }
    }

    /// Remembers what Airflow did not take, and forgets what does not rest any more.
    fn note_applied(&mut self, applied: Applied, resting: &BTreeSet<String>) -> PassReport {
        let Applied { report, setbacks, is_failure } = applied;
        self.has_failed = is_failure;
        self.resting.keep(|key| resting.contains(key) || setbacks.contains_key(key));
        for (key, setback) in setbacks {
            self.resting.note(key, setback, Instant::now());
        }
        report
    }

    fn applier(&self) -> Applier<'_> {
        Applier {
            definition: &self.parts.definition,
            airflow: &self.parts.airflow,
            ledger: &self.parts.ledger,
            leadership: &self.parts.leadership,
            ending: &self.ending,
            places: &self.parts.places,
            care: if self.has_failed || self.resting.any_failure() { Care::Apart } else { Care::Together },
        }
    }

    fn session(&self, ensemble: &Ensemble) -> Result<Session, PassError> {
        ensemble.session().ok_or_else(|| PassError::Source {
            sync: self.parts.definition.name.to_string(),
            path: self.parts.definition.path.to_string(),
            reason: format!("there is no session with the ensemble {}", ensemble.label()),
            hint: "is ZooKeeper running, and can this member reach it? Nothing changes in Airflow meanwhile",
        })
    }

    /// The key is read anew in each session: the ensemble may be another one.
    async fn digests(&mut self) -> Result<Digests, PassError> {
        let session = self.session(&self.parts.home)?;
        match &self.digests {
            Some((number, digests)) if *number == session.number() => Ok(digests.clone()),
            _ => {
                let digests = key::find_or_make(&session, &self.parts.root).await?;
                self.digests = Some((session.number(), digests.clone()));
                Ok(digests)
            }
        }
    }

    /// Logs what is news: what was written, and what is not in step, once.
    fn tell(&mut self, report: &PassReport) {
        let definition = &self.parts.definition;
        let (sync, airflow) = (&*definition.name, &*definition.airflow);
        let written: Vec<String> = report.written.iter().map(|(word, count)| format!("{count} {word}")).collect();
        if !written.is_empty() {
            let kind = definition.kind.as_str();
            tracing::info!(sync, airflow, kind, written = written.join(", "), "Airflow was brought into step");
        }
        let news = match (&report.error, &report.guard) {
            (Some(error), _) => error.clone(),
            (None, Some(guard)) => guard.clone(),
            (None, None) if report.differences() > 0 => format!("not everything is in step: {}", report.summary()),
            (None, None) => {
                if self.told.take().is_some() {
                    tracing::info!(sync, airflow, "everything is in step again");
                }
                return;
            }
        };
        if self.told.as_ref() != Some(&news) {
            let hint = report.hint.as_deref().unwrap_or("`flowkeeper sync diff` names the keys");
            tracing::warn!(sync, airflow, reason = news, hint, "a sync has something to tell");
            self.told = Some(news);
        }
    }
}
