//! What the leader saw of each ensemble last, for those who show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::Inspection;

/// The latest inspections by the ensemble's name.
pub type Inspections = BTreeMap<Arc<str>, Arc<Inspection>>;

/// Where the rounds put what they saw. Cheap to clone; all clones are one. Empty while this member does
/// not lead.
#[derive(Debug, Clone, Default)]
pub struct Latest(watch::Sender<Inspections>);

impl Latest {
    /// What was seen last, now and from now on.
    pub fn subscribe(&self) -> watch::Receiver<Inspections> {
        self.0.subscribe()
    }

    pub(super) fn put(&self, ensemble: &Arc<str>, inspection: Arc<Inspection>) {
        self.0.send_modify(|latest| drop(latest.insert(Arc::clone(ensemble), inspection)));
    }

    /// Nobody looks at this ensemble any more.
    pub(super) fn forget(&self, ensemble: &str) {
        self.0.send_if_modified(|latest| latest.remove(ensemble).is_some());
    }
}
