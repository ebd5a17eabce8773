//! The parts of a term by key: which run, and what changes when other definitions come into force.
//!
//! A part is declared with everything that it depends on. [`plan`] compares what is declared with what
//! runs, and says what ends and what begins; whatever depends on the same as before is not touched. So
//! a loop needs no way to hear of new definitions: it takes what it depends on as plain values, and is
//! ended and begun anew when one of them is another.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_cron_scheduler::JobSchedulerError;
use tokio_util::sync::CancellationToken;

use crate::domain::schedule::Schedule;
use crate::store::StoreError;

/// Why a part of a term ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Chores(#[from] JobSchedulerError),
}

/// Which part it is: what it does, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// What it does, as logs name it.
    pub(super) kind: &'static str,
    /// The Airflow, ensemble or schedule that it is for; empty where there is one only.
    pub(super) name: Arc<str>,
}

impl Key {
    pub(super) fn new(kind: &'static str, name: &str) -> Self {
        Self { kind, name: name.into() }
    }
}

/// Something that a part depends on.
#[derive(Clone)]
pub(super) enum Needs {
    /// A schedule as it was written. Equal ones of two sets are one value.
    Schedule(Arc<Schedule>),
    /// A client or a session.
    Incarnation(u64),
    /// A piece of the configuration, in words that change with it.
    Text(String),
}

impl PartialEq for Needs {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Schedule(one), Self::Schedule(other)) => Arc::ptr_eq(one, other),
            (Self::Incarnation(one), Self::Incarnation(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => false,
        }
    }
}

/// A part that is to run.
pub(super) struct Part {
    pub(super) key: Key,
    pub(super) needs: Vec<Needs>,
    pub(super) begin: Box<dyn FnOnce(CancellationToken) -> Work + Send>,
}

/// What a part does until it is asked to end.
pub(super) type Work = BoxFuture<'static, Result<(), PartError>>;

impl Part {
    /// A part that is dropped where it stands when it is to end.
    pub(super) fn cut<F, E>(key: Key, needs: Vec<Needs>, work: F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<PartError>,
    {
        Self::asked(key, needs, move |end| async move { end.run_until_cancelled(work).await.unwrap_or(Ok(())) })
    }

    /// A part that is asked to end, and waited for.
    pub(super) fn asked<F, E>(
        key: Key,
        needs: Vec<Needs>,
        work: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<PartError>,
    {
        let begin = move |end| -> Work { Box::pin(async move { work(end).await.map_err(Into::into) }) };
        Self { key, needs, begin: Box::new(begin) }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.key).finish()
    }
}

/// What is to be done so that what is declared runs, and nothing else.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What runs and is to end.
    pub(super) end: Vec<Key>,
    /// What is to begin once that has ended.
    pub(super) begin: Vec<Part>,
}

/// Compares what runs, and what each of it depends on, with what is declared.
pub(super) fn plan<'r>(running: impl IntoIterator<Item = (&'r Key, &'r [Needs])>, declared: Vec<Part>) -> Plan {
    let mut begin: HashMap<Key, Part> = declared.into_iter().map(|part| (part.key.clone(), part)).collect();
    let mut end = Vec::new();
    for (key, needs) in running {
        if begin.get(key).is_some_and(|part| part.needs == needs) {
            begin.remove(key);
        } else {
            end.push(key.clone());
        }
    }
    let mut begin: Vec<Part> = begin.into_values().collect();
    end.sort_unstable();
    begin.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Plan { end, begin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, needs: &str) -> Part {
        let needs = vec![Needs::Incarnation(1), Needs::Text(needs.to_owned())];
        Part::cut(Key::new("monitor", name), needs, std::future::pending::<Result<(), StoreError>>())
    }

    #[test]
    fn only_what_depends_on_something_else_than_before_is_touched() {
        type Parts<'p> = &'p [(&'p str, &'p str)];
        type Case<'c> = (&'c str, Parts<'c>, Parts<'c>, &'c [&'c str], &'c [&'c str]);
        let cases: [Case<'_>; 6] = [
            ("the first set", &[], &[("a", "1"), ("b", "1")], &[], &["a", "b"]),
            ("the same again", &[("a", "1"), ("b", "1")], &[("b", "1"), ("a", "1")], &[], &[]),
            ("one changed", &[("a", "1"), ("b", "1")], &[("a", "2"), ("b", "1")], &["a"], &["a"]),
            ("one more", &[("a", "1")], &[("a", "1"), ("b", "1")], &[], &["b"]),
            ("one less", &[("a", "1"), ("b", "1")], &[("a", "1")], &["b"], &[]),
            ("all gone", &[("a", "1"), ("b", "1")], &[], &["a", "b"], &[]),
        ];
        for (case, before, after, end, begin) in cases {
            let running: Vec<Part> = before.iter().map(|(name, needs)| part(name, needs)).collect();
            let declared = after.iter().map(|(name, needs)| part(name, needs)).collect();
            let plan = plan(running.iter().map(|part| (&part.key, &*part.needs)), declared);
            let ends: Vec<&str> = plan.end.iter().map(|key| &*key.name).collect();
            let begins: Vec<&str> = plan.begin.iter().map(|part| &*part.key.name).collect();
            assert_eq!((ends.as_slice(), begins.as_slice()), (end, begin), "{case}");
        }
    }

    #[test]
    fn another_client_of_the_same_name_is_another_dependency() {
        let running = part("a", "1");
        let mut other = part("a", "1");
        other.needs[0] = Needs::Incarnation(2);
        let plan = plan([(&running.key, &*running.needs)], vec![other]);
        assert_eq!((plan.end.len(), plan.begin.len()), (1, 1));
    }
}
