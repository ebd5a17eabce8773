//! What many schedules have alike: names, zones, expressions and templates, read once and shared.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::domain::calendar::{CronError, CronExpression};
use crate::domain::template::Compiler;

/// Texts that many schedules have alike, read once and shared.
#[derive(Default)]
pub(crate) struct Shared {
    pub(super) compiler: Compiler,
    crons: HashMap<String, Result<CronExpression, CronError>>,
    zones: HashMap<String, Option<TimeZone>>,
    names: HashMap<String, Arc<str>>,
}

impl Shared {
    /// The shared text of a name.
    pub(crate) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }

    pub(super) fn zone(&mut self, name: &str) -> Option<TimeZone> {
        if !self.zones.contains_key(name) {
            self.zones.insert(name.to_owned(), TimeZone::get(name).ok());
        }
        self.zones.get(name).cloned().flatten()
    }

    pub(super) fn cron(&mut self, text: &str) -> Result<CronExpression, CronError> {
        if !self.crons.contains_key(text) {
            self.crons.insert(text.to_owned(), CronExpression::parse(text));
        }
        match self.crons.get(text) {
            Some(known) => known.clone(),
            None => CronExpression::parse(text),
        }
    }
}
