//! Work whose outcome is shared by all who asked for it before it began.
//!
//! An inspection takes seconds and bothers every server, and a DAG asks for twenty-six of them within
//! a moment. Whoever asks gets the outcome of work that began after they asked: never an older one. So
//! those who come while it is under way wait for the next, all for the same, and however many they are,
//! two are enough.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// One kind of work. Nothing runs by itself: whoever waits longest does it for all.
#[derive(Debug)]
pub(super) struct SharedWork<T> {
    /// How often it has begun.
    begun: AtomicU64,
    /// The last that came to its end, with its number. Held while work is under way; first come, first
    /// served.
    done: Mutex<Option<(u64, T)>>,
}

impl<T: Clone> SharedWork<T> {
    pub(super) fn new() -> Self {
        Self { begun: AtomicU64::new(0), done: Mutex::new(None) }
    }

    /// The outcome of `work` that began after this was called. One that is dropped in the midst of its
    /// work leaves it to the next, who begins anew.
    pub(super) async fn outcome(&self, work: impl AsyncFnOnce() -> T) -> T {
        let before = self.begun.load(Ordering::SeqCst);
        let mut done = self.done.lock().await;
        if let Some((number, outcome)) = &*done
            && *number > before
        {
            return outcome.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work().await;
        *done = Some((number, outcome.clone()));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::Pin;

    use futures_util::future::join_all;
    use futures_util::poll;
    use tokio::sync::Semaphore;

    use super::*;

    /// Work that ends when the test lets it, and counts how often it began.
    struct Counted {
        work: SharedWork<u32>,
        count: Cell<u32>,
        may_end: Semaphore,
    }

    impl Counted {
        fn new() -> Self {
            Self { work: SharedWork::new(), count: Cell::new(0), may_end: Semaphore::new(0) }
        }

        /// Somebody who has asked and waits.
        async fn asker(&self) -> Pin<Box<dyn Future<Output = u32> + '_>> {
            let mut asker = Box::pin(self.work.outcome(async || {
                self.count.set(self.count.get() + 1);
                let number = self.count.get();
                self.may_end.acquire().await.expect("never closed").forget();
                number
            }));
            assert!(poll!(&mut asker).is_pending());
            asker
        }
    }

    #[tokio::test]
    async fn however_many_ask_while_it_runs_share_the_next() {
        let counted = Counted::new();
        let mut askers = Vec::new();
        for _ in 0..26 {
            askers.push(counted.asker().await);
        }
        counted.may_end.add_permits(26);
        let outcomes = join_all(askers).await;
        assert_eq!(outcomes[0], 1);
        assert!(outcomes[1..].iter().all(|outcome| *outcome == 2), "{outcomes:?}");
        assert_eq!(counted.count.get(), 2);
    }

    #[tokio::test]
    async fn what_was_found_before_is_never_told() {
        let counted = Counted::new();
        let first = counted.asker().await;
        let mut second = counted.asker().await;
        counted.may_end.add_permits(1);
        assert_eq!(first.await, 1);
        assert!(poll!(&mut second).is_pending(), "it begins anew");
        let third = counted.asker().await;
        counted.may_end.add_permits(2);
        assert_eq!((second.await, third.await), (2, 3));
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_it_to_the_next() {
        let counted = Counted::new();
        let impatient = counted.asker().await;
        let others = [counted.asker().await, counted.asker().await];
        drop(impatient);
        counted.may_end.add_permits(3);
        assert_eq!((join_all(others).await, counted.count.get()), (vec![2, 2], 2));
    }
}
