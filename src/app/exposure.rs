//! Warns of znodes of flowkeeper's own that everybody may change although this member has credentials: what runs
//! would then be up to whoever reaches ZooKeeper.

use std::sync::Arc;

use crate::zookeeper::{Ensemble, exposed, exposure_hint};

/// Looks once in each session until the process ends, which ends this task.
pub(super) async fn watch(ensemble: Ensemble, root: Arc<str>) {
    let mut status = ensemble.status();
    let mut told = Vec::new();
    let mut looked_in = None;
    loop {
        status.mark_unchanged();
        let session = ensemble.session().filter(|session| looked_in != Some(session.number()));
        if let Some(session) = session {
            looked_in = Some(session.number());
            match exposed(&session, &root).await {
                Ok(paths) if paths == told => {}
                Ok(paths) => {
                    if !paths.is_empty() {
                        tracing::warn!(
                            hint = exposure_hint(&paths),
                            "everybody who reaches ZooKeeper may change {}, which this member goes by: they were made \
                             without credentials, or by somebody else",
                            paths.join(", ")
                        );
                    }
                    told = paths;
                }
                Err(error) => tracing::debug!(%root, %error, "who may change these znodes cannot be read"),
            }
        }
        // The sender lives as long as the ensemble, which lives as long as we hold it.
        drop(status.changed().await);
    }
}
