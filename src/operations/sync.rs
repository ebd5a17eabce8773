//! Having a sync compare now: checks that there is one, has it audited, and hands the order to its loop.

use super::{OperationError, Operations, Order};
use crate::config::Config;
use crate::sync::Unheard;
use crate::sync::pass::Options;
use crate::sync::report::PassReport;

impl Operations {
    /// Has a sync compare now, and bring Airflow into step unless it is only to be looked at.
    pub async fn apply_sync(
        &self,
        config: &Config,
        sync: &str,
        options: Options,
        order: Order,
    ) -> Result<PassReport, OperationError> {
        if config.sync(sync).is_none() {
            let names: Vec<&str> = config.syncs.iter().map(|sync| &*sync.name).collect();
            return Err(OperationError::NoSync { name: sync.to_owned(), known: names.join(", ") });
        }
        // A sync belongs to nobody, so a caller that is bound to a team may only look.
        if !options.dry_run {
            self.check_reach(&order, "apply", || format!("the sync `{sync}`"), None)?;
        }
        let leadership = self.leadership("compare a sync")?;
        if !options.dry_run {
            let asked: Vec<&str> = [("prune", options.prune), ("repair", options.repair)]
                .iter()
                .filter(|it| it.1)
                .map(|it| it.0)
                .collect();
            let detail = Some(asked.join(", ")).filter(|asked| !asked.is_empty());
            self.0.ledger.write_audit(&leadership, order.audit("sync apply", sync.to_owned(), detail)).await?;
        }
        self.0.desks.ask(sync, options).await.map_err(|Unheard| OperationError::SyncAtRest { name: sync.to_owned() })
    }
}
