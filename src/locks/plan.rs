//! What is to be done about one lock: a pure function over its queue and the runs that own it.

use std::collections::HashSet;

use jiff::Timestamp;

use super::node::OurRuns;
use crate::domain::run::RunId;
use crate::zookeeper::contender;

/// A run of this store that owns the lock: it waits for it, or holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) run: RunId,
    /// It was granted the lock, or may be in Airflow for another reason: nobody else of ours gets it.
    pub(super) holding: bool,
    /// The dispatcher waits for the grant before it submits.
    pub(super) waits: bool,
    /// The number of the ask that it waits with.
    pub(super) ask: u64,
    /// Since when it waits.
    pub(super) asked_at: Timestamp,
    /// Whether the ledger knows that it waits.
    pub(super) noted: bool,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Runs that need a znode, in the order in which they are to queue.
    pub(super) create: Vec<RunId>,
    /// Znodes of ours that nobody needs.
    pub(super) delete: Vec<String>,
    /// The run that has the lock from now on.
    pub(super) granted: Option<RunId>,
    /// Runs that hold the lock without being first in the queue: somebody else may hold it as well.
    pub(super) beside: Vec<RunId>,
}

/// Judges the children of a lock's znode. `claims` are in the order of their asking.
///
/// The lowest number holds the lock, and numbers only grow, so a run that stands first in any view of
/// the queue is first. Of two znodes of one run the lower one counts. What a run holds it keeps: a
/// znode of its that was deleted is made again, and until then no other run of ours gets the lock.
pub(super) fn plan(children: &[String], ours: &OurRuns, claims: &[Claim]) -> Plan {
    let queue = contender::in_order(children.iter().map(String::as_str));
    let wanted: HashSet<RunId> = claims.iter().map(|claim| claim.run).collect();
    let mut plan = Plan::default();
    let mut standing: HashSet<RunId> = HashSet::new();
    let mut first: Option<Option<RunId>> = None;
    for contender in queue {
        match ours.run_of(&contender.name) {
            Some(run) if wanted.contains(&run) && standing.insert(run) => {
                first.get_or_insert(Some(run));
            }
            // Of no run that wants it, or the second of one.
            Some(_) => plan.delete.push(contender.name),
            None => {
                first.get_or_insert(None);
            }
        }
    }
    let first = first.flatten();
    let missing = |holding: bool| {
        let claims = claims.iter().filter(move |claim| claim.holding == holding);
        claims.map(|claim| claim.run).filter(|run| !standing.contains(run))
    };
    plan.create = missing(true).chain(missing(false)).collect();
    let beside = claims.iter().filter(|claim| claim.holding && !claim.waits && first != Some(claim.run));
    plan.beside = beside.map(|claim| claim.run).collect();
    plan.granted =
        first.filter(|&run| claims.iter().all(|claim| if claim.run == run { claim.waits } else { !claim.holding }));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURATOR: &str = "_c_0a1b2c3d-0000-4000-8000-000000000001-lock-";
    const KAZOO: &str = "7f3ca1f2b4c844d6a7d1c5d7c2e9a001__lock__";

    fn ours() -> OurRuns {
        OurRuns::new("store")
    }

    fn node(run: i64, number: u32) -> String {
        format!("{}{number:010}", ours().prefix(RunId(run)))
    }

    fn claim(run: i64, holding: bool) -> Claim {
        Claim { run: RunId(run), holding, waits: !holding, ask: 0, asked_at: Timestamp::UNIX_EPOCH, noted: true }
    }

    /// Children and claims; who is to be made, what goes, who is granted, who holds beside another.
    type Case<'a> = (&'a str, Vec<String>, Vec<Claim>, &'a [i64], &'a [String], Option<i64>, &'a [i64]);

    #[test]
    fn the_first_in_the_queue_holds_the_lock() {
        let (waits, holds) = (|run| claim(run, false), |run| claim(run, true));
        let foreign = |prefix: &str, number: u32| format!("{prefix}{number:010}");
        let perhaps = |run| Claim { waits: true, ..holds(run) };
        let cases: [Case<'_>; 16] = [
            ("nothing", vec![], vec![], &[], &[], None, &[]),
            ("who asks gets a znode first", vec![], vec![waits(1), waits(2)], &[1, 2], &[], None, &[]),
            ("then the lock", vec![node(2, 4), node(1, 3)], vec![waits(1), waits(2)], &[], &[], Some(1), &[]),
            ("once", vec![node(2, 4), node(1, 3)], vec![holds(1), waits(2)], &[], &[], None, &[]),
            ("Curator is before", vec![foreign(CURATOR, 2), node(1, 3)], vec![waits(1)], &[], &[], None, &[]),
            ("kazoo is before", vec![foreign(KAZOO, 2), node(1, 3)], vec![waits(1)], &[], &[], None, &[]),
            ("Curator is behind", vec![foreign(CURATOR, 4), node(1, 3)], vec![waits(1)], &[], &[], Some(1), &[]),
            ("given back", vec![node(1, 3), node(2, 4)], vec![waits(2)], &[], &[node(1, 3)], Some(2), &[]),
            ("two znodes of one run", vec![node(1, 3), node(1, 4)], vec![holds(1)], &[], &[node(1, 4)], None, &[]),
            (
                "the second znode does not hold others up",
                vec![node(1, 3), node(1, 4), node(2, 5)],
                vec![waits(2)],
                &[],
                &[node(1, 3), node(1, 4)],
                Some(2),
                &[],
            ),
            ("somebody deleted the holder's znode", vec![node(2, 4)], vec![waits(2), holds(1)], &[1], &[], None, &[1]),
            (
                "a cleared DAG run beside the holder",
                vec![node(1, 3), node(2, 4), node(3, 5)],
                vec![holds(1), holds(2), waits(3)],
                &[],
                &[],
                None,
                &[2],
            ),
            (
                "what does not queue is left alone",
                vec!["leases".into(), node(1, 3)],
                vec![waits(1)],
                &[],
                &[],
                Some(1),
                &[],
            ),
            (
                "what may have been submitted in an earlier life goes on",
                vec![node(1, 3), node(2, 4)],
                vec![perhaps(1), waits(2)],
                &[],
                &[],
                Some(1),
                &[],
            ),
            ("and nobody before it", vec![node(2, 4), node(1, 5)], vec![perhaps(1), waits(2)], &[], &[], None, &[]),
            ("all that is ours goes with its runs", vec![node(1, 3)], vec![], &[], &[node(1, 3)], None, &[]),
        ];
        for (title, children, claims, create, delete, granted, beside) in cases {
            let runs = |runs: &[i64]| runs.iter().copied().map(RunId).collect::<Vec<_>>();
            let expected = Plan {
                create: runs(create),
                delete: delete.to_vec(),
                granted: granted.map(RunId),
                beside: runs(beside),
            };
            assert_eq!(plan(&children, &ours(), &claims), expected, "{title}");
        }
    }

    proptest::proptest! {
        /// However the queue looks: what is foreign stays, what is granted is a waiting run of ours that
        /// stands before all others, and every run has a znode or is to get one.
        #[test]
        fn nobody_is_granted_what_another_holds(
            // ZooKeeper gives each child of a znode a number of its own.
            nodes in proptest::collection::btree_map(0..40_u32, 0..6_i64, 0..12),
            claims in proptest::collection::btree_map(1..6_i64, proptest::bool::ANY, 0..6),
        ) {
            let children: Vec<String> = nodes
                .iter()
                .map(|(&number, &run)| if run == 0 { format!("{CURATOR}{number:010}") } else { node(run, number) })
                .collect();
            let claims: Vec<Claim> = claims.into_iter().map(|(run, holding)| claim(run, holding)).collect();
            let plan = plan(&children, &ours(), &claims);
            proptest::prop_assert!(plan.delete.iter().all(|name| ours().run_of(name).is_some()));
            if let Some(granted) = plan.granted {
                proptest::prop_assert!(claims.iter().all(|claim| !claim.holding));
                let left = contender::in_order(children.iter().map(String::as_str));
                let left = left.iter().find(|contender| !plan.delete.contains(&contender.name));
                proptest::prop_assert_eq!(left.and_then(|contender| ours().run_of(&contender.name)), Some(granted));
            }
            for claim in &claims {
                let stands = children.iter().any(|name| ours().run_of(name) == Some(claim.run));
                proptest::prop_assert!(stands != plan.create.contains(&claim.run));
            }
        }
    }
}
