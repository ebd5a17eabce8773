//! Turns of the syncs that write into the same collection of an Airflow.
//!
//! A plan holds for as long as nobody writes what it was made from. So those that could want the same keys
//! compare and write one after the other, and each sees what those before it have made its own. When they
//! begin together, the first in the alphabet goes first: of two that want a key, which one has it is then
//! the same each time, and stays so.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};

use crate::domain::sync::definition::SyncDefinition;
use crate::domain::sync::entry::EntryKind;

/// How long a sync waits for those that go first. They may be unable to read their znodes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The collections that syncs of a term write into. Cheap to clone.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<Collections>>);

/// By Airflow and kind; one goes with the last sync that writes into it.
type Collections = HashMap<(Arc<str>, EntryKind), Weak<Collection>>;

/// What the syncs of one collection share.
struct Collection {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Those that had a turn since they began.
    had: watch::Sender<BTreeSet<Arc<str>>>,
}

/// A sync among those that share its collection.
pub(super) struct Turn {
    sync: Arc<str>,
    collection: Arc<Collection>,
}

impl Turns {
    /// A sync begins.
    pub(super) fn join(&self, definition: &SyncDefinition) -> Turn {
        let mut collections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        collections.retain(|_, collection| collection.strong_count() > 0);
        let key = (Arc::clone(&definition.airflow), definition.kind);
        let collection = collections.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let collection = Arc::new(Collection { turn: Arc::default(), had: watch::Sender::default() });
            collections.insert(key, Arc::downgrade(&collection));
            collection
        });
        Turn { sync: Arc::clone(&definition.name), collection }
    }
}

impl Turn {
    /// Waits until it is this one's turn among those that are `configured`; the others wait until what is
    /// returned is dropped.
    pub(super) async fn take(&self, configured: &BTreeSet<Arc<str>>) -> OwnedMutexGuard<()> {
        self.let_first_go(configured, PATIENCE).await;
        let its_turn = Arc::clone(&self.collection.turn).lock_owned().await;
        self.collection.had.send_if_modified(|had| had.insert(Arc::clone(&self.sync)));
        its_turn
    }

    /// Waits, when it has had no turn, until those that go first had theirs.
    async fn let_first_go(&self, configured: &BTreeSet<Arc<str>>, patience: Duration) {
        let mut had = self.collection.had.subscribe();
        let may_go =
            |had: &BTreeSet<Arc<str>>| had.contains(&self.sync) || go_first(&self.sync, configured, had).is_none();
        // Whoever goes first may never come.
        drop(tokio::time::timeout(patience, had.wait_for(may_go)).await);
    }
}

/// Who goes before `sync` and had no turn yet.
fn go_first<'c>(sync: &str, configured: &'c BTreeSet<Arc<str>>, had: &BTreeSet<Arc<str>>) -> Option<&'c Arc<str>> {
    configured.iter().take_while(|name| &***name < sync).find(|name| !had.contains(*name))
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.collection.had.send_modify(|had| {
            had.remove(&self.sync);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn the_first_in_the_alphabet_goes_first() {
        for (sync, had, expected) in [
            ("a", &[][..], None),
            ("b", &[], Some("a")),
            ("b", &["a"], None),
            ("c", &[], Some("a")),
            ("c", &["a"], Some("b")),
            ("c", &["b"], Some("a")),
            ("c", &["a", "b"], None),
        ] {
            let configured = names(&["a", "b", "c"]);
            assert_eq!(go_first(sync, &configured, &names(had)).map(|name| &**name), expected, "{sync} after {had:?}");
        }
    }

    #[tokio::test]
    async fn turns_go_by_name_at_first_and_then_as_they_come() {
        let collection = Arc::new(Collection { turn: Arc::default(), had: watch::Sender::default() });
        let turn = |name: &str| Turn { sync: name.into(), collection: Arc::clone(&collection) };
        let (a, b, configured) = (turn("a"), turn("b"), names(&["a", "b", "c", "d"]));
        let order = Mutex::new(Vec::new());
        let go = async |turn: &Turn| {
            let _its_turn = turn.take(&configured).await;
            order.lock().expect("no panic").push(turn.sync.to_string());
        };
        tokio::join!(go(&b), go(&a));
        tokio::join!(go(&b), go(&a));
        assert_eq!(*order.lock().expect("no panic"), ["a", "b", "b", "a"]);
        // One that has gone is waited for by those that begin, and not for ever.
        drop(a);
        go(&b).await;
        let c = turn("c");
        let waiting = c.let_first_go(&configured, PATIENCE);
        assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
        c.let_first_go(&configured, Duration::from_millis(1)).await;
    }
}
