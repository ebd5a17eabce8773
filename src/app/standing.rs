//! Whether this member leads: stands by, takes the lead, leads for a term, stands by again.
//!
//! [`decide`] is the whole policy, a pure function; the loop only waits and calls. Being first in the
//! queue gives the right to try; what makes a leader is the epoch in the store, and nothing but the
//! store takes it away. So a leader that lost its place in the queue, or all of ZooKeeper, leads on
//! until somebody else has raised the epoch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ServeError;
use super::join::refused_by;
use super::member::Member;
use super::owner::Owner;
use super::reload::{self, REFUSAL_PATIENCE, Refused};
use super::term::Term;
use crate::clock::sleep_until;
use crate::definitions::reloads::{Answer, Reloads};
use crate::members::{Sight, leader_text};
use crate::metrics;
use crate::store::StoreError;
use crate::zookeeper::{self, MemberCard, Membership, Standing};

/// How long the parts of the last term may take to finish what they had begun when the process ends:
/// as long as the process gives its tasks.
const LAST_TERM_PATIENCE: Duration = Duration::from_secs(40);

/// The same when the member stands by again. What is left after it writes nothing any more.
const TERM_PATIENCE: Duration = Duration::from_secs(5);

/// How long a leader keeps its place in the queue while the store does not answer it. It leads on, but
/// another member that reaches the store may take over.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the store may take to give the lead to a member that is first in the queue.
const TAKE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a term may take to begin. A hundred thousand schedules take seconds.
const BEGIN_PATIENCE: Duration = Duration::from_secs(30);

/// How long a member leaves the queue to others after it took the lead in vain.
const REST: Duration = Duration::from_secs(5);

/// How long a member that is first waits for the newest definitions. ZooKeeper has just said that it is first, so
/// it answers, and checking a hundred thousand schedules takes seconds. It leads with those that it knows rather
/// than not at all.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(15);

/// How soon a member that is first looks again whether it really is.
const CONFIRM_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long the start waits for the home ensemble before the member counts as started: its reading API
/// works without.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Whether this member was let in among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The others have not been seen yet.
    Open,
    /// They share its store.
    Welcome,
    /// They have another store.
    Refused,
}

/// Where the present term stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Office {
    /// This member does not lead.
    Standby,
    /// It leads, as far as it knows.
    Leading,
    /// It led, and a newer epoch refuses it.
    Lost,
}

/// Whether the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreSight {
    /// It does.
    Answers,
    /// It has not for so long.
    Silent(Duration),
}

/// Everything that a decision goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// The process is to end.
    pub(super) ending: bool,
    /// Whether this member may take part.
    pub(super) admission: Admission,
    /// It was first in the queue when it last looked.
    pub(super) first: bool,
    /// Whether it leads.
    pub(super) office: Office,
    /// Whether the store answers.
    pub(super) store: StoreSight,
    /// It leaves the lead to others: it took it in vain a moment ago, or cannot take the newest definitions.
    pub(super) holds_back: bool,
}

/// What follows from a situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    /// Whether to be in the queue.
    pub(super) stand: bool,
    /// What to do.
    pub(super) step: Step,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on as it is, leading or standing by.
    GoOn,
    /// Make sure of the first place, and raise the epoch.
    TakeLead,
    /// End the term, and stand by.
    StandBy,
    /// End, since the others have another store.
    Refuse,
    /// End, since the process ends.
    Leave,
}

/// The policy.
pub(super) fn decide(situation: Situation) -> Decision {
    let Situation { ending, admission, first, office, store, holds_back } = situation;
    let reaches_store = match store {
        StoreSight::Answers => true,
        StoreSight::Silent(since) => office == Office::Leading && since < STORE_PATIENCE,
    };
    let stand = !ending && admission == Admission::Welcome && reaches_store && !holds_back;
    let step = match office {
        _ if ending => Step::Leave,
        _ if admission == Admission::Refused => Step::Refuse,
        Office::Lost => Step::StandBy,
        Office::Standby if first && stand => Step::TakeLead,
        Office::Standby | Office::Leading => Step::GoOn,
    };
    Decision { stand, step }
}

/// Takes part until the process ends, or until this member is refused.
pub(super) async fn run(member: Arc<Member>, definitions: Reloads) -> Result<(), ServeError> {
    match member.membership.clone() {
        Some(membership) => Candidate::new(member, membership, definitions).run().await,
        None => alone(&member).await,
    }
}

/// Without other members: takes the lead at the start, and ends when a newer process does so.
async fn alone(member: &Arc<Member>) -> Result<(), ServeError> {
    let ending = member.lifecycle.ending();
    let Some(taken) = ending.run_until_cancelled(take_lead(member)).await else { return Ok(()) };
    let mut term = taken?;
    loop {
        member.status.set_started();
        tokio::select! {
            () = ending.cancelled() => {}
            () = term.leadership().lost().cancelled() => {}
        }
        let (replaced, faltered) = (!ending.is_cancelled(), term.has_faltered());
        term.end(if replaced { TERM_PATIENCE } else { LAST_TERM_PATIENCE }).await;
        match (replaced, faltered) {
            (false, _) => return Ok(()),
            (true, false) => return Err(ServeError::Replaced),
            (true, true) => {}
        }
        let Some(taken) = ending.run_until_cancelled(take_lead_again(member)).await else { return Ok(()) };
        term = taken?;
    }
}

/// Takes the lead when the store is back.
async fn take_lead_again(member: &Arc<Member>) -> Result<Term, StoreError> {
    loop {
        tokio::time::sleep(REST).await;
        match take_lead(member).await {
            Err(error) if error.is_transient() => {
                tracing::warn!("failed to take the lead again: failed to {error}; tried again in {} s", REST.as_secs());
            }
            taken => return taken,
        }
    }
}

/// Raises the epoch and starts a term under it; gives up when another member does so meanwhile, or when
/// the store takes too long.
async fn take_lead(member: &Arc<Member>) -> Result<Term, StoreError> {
    // Whoever leads until then goes on while Airflow is asked.
    member.board.now().resources.asked().await;
    let began = Instant::now();
    let card = leader_text(&member.card);
    let leadership = tokio::time::timeout(TAKE_PATIENCE, member.ledger.take_lead(&card)).await;
    let leadership = leadership.unwrap_or(Err(StoreError::OutcomeUnknown))?;
    let epoch = leadership.epoch();
    let mut sight = member.sight.subscribe();
    let newer = |sight: &Sight| sight.lead.as_ref().map_or(0, |lead| lead.epoch) > epoch;
    let term = tokio::select! {
        term = tokio::time::timeout(BEGIN_PATIENCE, Term::begin(member, leadership)) => term,
        Ok(sight) = sight.wait_for(newer) => {
            let current = sight.lead.as_ref().map_or(0, |lead| lead.epoch);
            return Err(StoreError::Fenced { held: epoch, current });
        }
    };
    let term = term.unwrap_or(Err(StoreError::OutcomeUnknown))?;
    let took = began.elapsed();
    metrics::term_begun(took);
    tracing::info!(epoch, took_ms = took.as_millis(), "took the lead");
    Ok(term)
}

/// A member among others.
struct Candidate {
    member: Arc<Member>,
    membership: Membership,
    standing: watch::Receiver<Standing>,
    members: watch::Receiver<Arc<Vec<zookeeper::Member>>>,
    owner: watch::Receiver<Owner>,
    store_silent_since: watch::Receiver<Option<Instant>>,
    refused: watch::Receiver<Option<Refused>>,
    /// Has the definitions read.
    definitions: Reloads,
    admission: Admission,
    /// Whose store is another one.
    refused_by: Option<MemberCard>,
    term: Option<Term>,
    /// Whether it left the lead to others when it last looked.
    gave_way: bool,
    rests_until: Option<Instant>,
    /// When to look again although nothing has changed.
    look_at: Option<Instant>,
    began: Instant,
}

impl Candidate {
    fn new(member: Arc<Member>, membership: Membership, definitions: Reloads) -> Self {
        Self {
            standing: membership.standing(),
            members: membership.members(),
            owner: member.owner.clone(),
            store_silent_since: member.store_silent_since.subscribe(),
            refused: member.refused.subscribe(),
            definitions,
            gave_way: false,
            member,
            membership,
            admission: Admission::Open,
            refused_by: None,
            term: None,
            rests_until: None,
            look_at: None,
            began: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), ServeError> {
        loop {
            let situation = self.look();
            let decision = decide(situation);
            self.membership.stand(decision.stand);
            match decision.step {
                Step::GoOn => {}
                Step::TakeLead => self.try_to_lead().await,
                Step::StandBy => {
                    if self.term.as_ref().is_some_and(Term::has_faltered) {
                        self.rest();
                    } else {
                        tracing::info!("stands by: a newer leader has taken over");
                    }
                    self.end_term(TERM_PATIENCE).await;
                    continue;
                }
                Step::Refuse | Step::Leave => break,
            }
            self.wait().await;
        }
        self.end_term(LAST_TERM_PATIENCE).await;
        self.membership.leave().await;
        match self.refused_by {
            Some(other) => Err(ServeError::OtherStore {
                own_id: self.member.card.store_id.clone(),
                own_url: self.member.card.store_url.clone(),
                other_id: other.store_id,
                other_url: other.store_url,
                member: other.id,
            }),
            None => Ok(()),
        }
    }

    /// Gathers what a decision goes by.
    fn look(&mut self) -> Situation {
        let now = Instant::now();
        let standing = self.standing.borrow_and_update().clone();
        self.admit(&standing);
        self.tell_started(&standing, now);
        let silent_since = *self.store_silent_since.borrow_and_update();
        let office = match &self.term {
            None => Office::Standby,
            Some(term) if term.leadership().lost().is_cancelled() => Office::Lost,
            Some(_) => Office::Leading,
        };
        self.rests_until = self.rests_until.filter(|until| *until > now);
        let patience_ends = silent_since.map(|since| since + STORE_PATIENCE).filter(|end| *end > now);
        let start_ends = (!self.member.status.is_started()).then(|| self.began + START_PATIENCE);
        let (gives_way, gives_way_at) = self.gives_way(now);
        self.look_at = [self.rests_until, patience_ends, start_ends, gives_way_at].into_iter().flatten().min();
        Situation {
            ending: self.member.lifecycle.ending().is_cancelled(),
            admission: self.admission,
            first: standing == Standing::First,
            office,
            store: silent_since.map_or(StoreSight::Answers, |since| StoreSight::Silent(now - since)),
            holds_back: self.rests_until.is_some() || gives_way,
        }
    }

    /// Whether to leave the lead to members that can take the newest definitions, and when to look again.
    fn gives_way(&mut self, now: Instant) -> (bool, Option<Instant>) {
        let since = self.refused.borrow_and_update().as_ref().map(|refused| refused.since);
        let own = &self.member.card.id;
        let live = Arc::clone(&self.members.borrow());
        let others_take_it = live.iter().any(|member| member.card.id != *own && member.card.refuses.is_none());
        let gives_way = reload::gives_way(since.map(|since| now - since), others_take_it, self.term.is_some());
        if gives_way && !self.gave_way {
            tracing::warn!("leaves the lead to members that can take the newest definitions, which this one refuses");
        }
        self.gave_way = gives_way;
        (gives_way, since.map(|since| since + REFUSAL_PATIENCE).filter(|end| *end > now))
    }

    /// Compares stores with the others, whenever they can be seen.
    fn admit(&mut self, standing: &Standing) {
        let live = Arc::clone(&self.members.borrow_and_update());
        let own = &self.member.card;
        let is_seen = matches!(standing, Standing::Standby { .. } | Standing::First)
            && live.iter().any(|member| member.card.id == own.id);
        let owner = match &*self.owner.borrow_and_update() {
            // Whoever owns the root may be about to come back.
            Owner::Unread => return,
            Owner::Nobody => None,
            Owner::Store(store_id) => Some(store_id.clone()),
        };
        if !is_seen {
            return;
        }
        self.refused_by = refused_by(own, &live, self.admission == Admission::Open, owner.as_deref()).cloned();
        self.admission = if self.refused_by.is_some() { Admission::Refused } else { Admission::Welcome };
    }

    /// A standby is ready when it was let in; and when ZooKeeper cannot be reached, since what it serves
    /// comes from the store.
    fn tell_started(&self, standing: &Standing, now: Instant) {
        if self.member.status.is_started() {
            return;
        }
        let is_cut_off = matches!(standing, Standing::Disconnected { .. } | Standing::Refused { .. });
        if self.admission == Admission::Open {
            if !is_cut_off && now < self.began + START_PATIENCE {
                return;
            }
            tracing::warn!(
                hint = "check `[zookeeper] connect`",
                "the home ensemble cannot be reached: this member stands by, since nobody can be elected without it"
            );
        }
        self.member.status.set_started();
    }

    /// Catches up with the definitions, makes sure of the first place and takes the lead; leaves the queue to
    /// others if they can take the newest definitions and it cannot, or if the store does not give it.
    async fn try_to_lead(&mut self) {
        let ending = self.member.lifecycle.ending().clone();
        if ending.run_until_cancelled(self.catch_up()).await.is_none() {
            return;
        }
        let now = Instant::now();
        if self.gives_way(now).0 {
            self.look_at = Some(now);
            return;
        }
        let attempt = async {
            match self.membership.confirm_first().await {
                Ok(true) => Some(take_lead(&self.member).await),
                Ok(false) => None,
                Err(error) => {
                    tracing::debug!(error = %error, "whether this member is first could not be confirmed; asked again");
                    None
                }
            }
        };
        match ending.run_until_cancelled(attempt).await.flatten() {
            Some(Ok(term)) => self.term = Some(term),
            // It is not first, or another one was faster.
            None | Some(Err(StoreError::Fenced { .. })) => self.look_at = Some(Instant::now() + CONFIRM_AGAIN_AFTER),
            Some(Err(error)) => {
                tracing::warn!(
                    hint = error.hint().unwrap_or_default(),
                    "failed to take the lead: failed to {error}; withdrawing for {} s so that another member may try",
                    REST.as_secs()
                );
                self.rest();
            }
        }
    }

    /// Has the znode with the definitions read once more, so that a set which was pushed until now is in force
    /// here, or refused, before this member leads. In vain where it is not first any more.
    async fn catch_up(&self) {
        if self.member.znode.is_none() {
            return;
        }
        let mut standing = self.standing.clone();
        let answer = tokio::select! {
            answer = self.definitions.catch_up(CATCH_UP_PATIENCE) => answer,
            // The sender lives as long as the member does.
            _ = standing.wait_for(|standing| *standing != Standing::First) => return,
        };
        if let Answer::Waits(why) = answer {
            tracing::warn!(
                "takes the lead with the definitions that it knows: what the newest are is open, since {why}"
            );
        }
    }

    /// Leaves the queue to others for a while.
    fn rest(&mut self) {
        self.membership.stand(false);
        self.rests_until = Some(Instant::now() + REST);
        self.look_at = self.rests_until;
    }

    async fn end_term(&mut self, patience: Duration) {
        if let Some(term) = self.term.take() {
            term.end(patience).await;
        }
    }

    /// Waits until something that a decision goes by may have changed.
    async fn wait(&mut self) {
        let lost = self.term.as_ref().map(|term| term.leadership().lost().clone());
        let lost = async {
            match lost {
                Some(lost) => lost.cancelled().await,
                None => std::future::pending().await,
            }
        };
        // The senders live as long as the member does.
        tokio::select! {
            () = self.member.lifecycle.ending().cancelled() => {}
            _ = self.standing.changed() => {}
            _ = self.members.changed() => {}
            _ = self.owner.changed() => {}
            _ = self.store_silent_since.changed() => {}
            _ = self.refused.changed() => {}
            () = lost => {}
            () = sleep_until(self.look_at) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Situation = Situation {
        ending: false,
        admission: Admission::Welcome,
        first: false,
        office: Office::Standby,
        store: StoreSight::Answers,
        holds_back: false,
    };

    #[test]
    fn each_situation_has_one_answer() {
        let leading = Situation { office: Office::Leading, ..CALM };
        let first = Situation { first: true, ..CALM };
        let silent = |seconds| StoreSight::Silent(Duration::from_secs(seconds));
        let cases = [
            ("stands by", CALM, true, Step::GoOn),
            ("first in the queue", first, true, Step::TakeLead),
            ("leads", Situation { first: true, ..leading }, true, Step::GoOn),
            ("leads, and is not first any more: the store decides", leading, true, Step::GoOn),
            ("was replaced", Situation { office: Office::Lost, ..CALM }, true, Step::StandBy),
            ("was replaced, and is first", Situation { office: Office::Lost, ..first }, true, Step::StandBy),
            ("has not seen the others yet", Situation { admission: Admission::Open, ..first }, false, Step::GoOn),
            ("has another store", Situation { admission: Admission::Refused, ..CALM }, false, Step::Refuse),
            (
                "has another store than the leader after a partition",
                Situation { admission: Admission::Refused, ..leading },
                false,
                Step::Refuse,
            ),
            ("cannot reach the store", Situation { store: silent(0), ..CALM }, false, Step::GoOn),
            ("first, and cannot reach the store", Situation { store: silent(0), ..first }, false, Step::GoOn),
            ("leads, and the store hesitates", Situation { store: silent(9), ..leading }, true, Step::GoOn),
            (
                "leads, and the store is away: another may try",
                Situation { store: silent(10), ..leading },
                false,
                Step::GoOn,
            ),
            (
                "took the lead in vain, or refuses the newest definitions",
                Situation { holds_back: true, ..first },
                false,
                Step::GoOn,
            ),
            (
                "leads with older definitions than others have: until one of them takes the lead",
                Situation { holds_back: true, ..leading },
                false,
                Step::GoOn,
            ),
            ("ends", Situation { ending: true, ..CALM }, false, Step::Leave),
            ("ends while it leads", Situation { ending: true, ..leading }, false, Step::Leave),
            (
                "ends while it is refused",
                Situation { ending: true, admission: Admission::Refused, ..CALM },
                false,
                Step::Leave,
            ),
        ];
        for (case, situation, stand, step) in cases {
            assert_eq!(decide(situation), Decision { stand, step }, "{case}");
        }
    }
}
