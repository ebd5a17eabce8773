//! What commands work with: the configuration, the ledger, the zone that times are in.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::arguments::GlobalOptions;
use super::client::ApiClient;
use super::error::CommandError;
use super::output::Output;
use super::time::{Direction, TimeArgument};
use crate::clock::Clock;
use crate::config::model::{DefinitionsSource, Role};
use crate::config::render::{self, Color};
use crate::config::secret::Secret;
use crate::config::{self, Config, Environment, Faults};
use crate::definitions::{Set, Source, files, history};
use crate::domain::schedule::Schedule;
use crate::operations::find_schedule;
use crate::overview::Standing;
use crate::store::{Ledger, StoreError};

/// How long reading commands, which work without a member, wait for what only a member knows.
const STANDING_PATIENCE: Duration = Duration::from_secs(2);

/// What commands work with.
pub(super) struct Context {
    pub(super) global: GlobalOptions,
    pub(super) output: Output,
    pub(super) clock: Clock,
    pub(super) environment: Environment,
}

impl Context {
    pub(super) fn new(global: GlobalOptions) -> Self {
        let output = Output::new(global.output, global.color);
        Self { global, output, clock: Clock::system(), environment: Environment::of_process() }
    }

    /// The time now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The configuration; its faults are the error, and its warnings `check`'s to tell. Definitions in
    /// ZooKeeper are no part of it.
    pub(super) fn config(&self) -> Result<Config, CommandError> {
        config::check(&self.global.config, &self.environment)
            .map(|(config, _)| config)
            .map_err(|faults| self.refused(&faults))
    }

    /// The configuration with the definitions in force. Those in ZooKeeper are read from the ledger, which
    /// keeps what a leader has taken up, so that this works while ZooKeeper is away.
    pub(super) async fn config_in_force(&self) -> Result<Config, CommandError> {
        let config = self.config()?;
        if config.server.definitions == DefinitionsSource::File {
            return Ok(config);
        }
        let Some(ledger) = self.ledger_if_any(&config).await? else { return Ok(config) };
        let Some((entry, text)) = ledger.latest_definitions(Some(Source::Zookeeper.as_str())).await? else {
            return Ok(config);
        };
        let documents = history::documents(&entry, &text)?;
        let checked = config::check_definitions(&self.global.config, &documents, &self.environment);
        checked.map(|(config, _)| config).map_err(|faults| self.refused(&faults))
    }

    /// The definitions that a member begins with.
    pub(super) fn set(&self) -> Result<Set, CommandError> {
        files::read(&self.global.config, &self.environment, self.now()).map_err(|refusal| self.refused(&refusal.faults))
    }

    fn refused(&self, faults: &Faults) -> CommandError {
        let file = faults.file.display();
        CommandError::usage(format!(
            "failed to read the configuration {file}\n\n{}",
            render::human(&faults.faults, self.error_color()).trim_end()
        ))
        .hint(match faults.faults.len() {
            1 => "correct it and run the command again".to_owned(),
            _ => "correct them; `flowkeeper check` shows what is left".to_owned(),
        })
    }

    /// Whether errors are coloured.
    pub(super) fn error_color(&self) -> Color {
        if Output::colors(self.global.color, std::io::stderr().is_terminal()) { Color::On } else { Color::Off }
    }

    fn address(&self, config: &Config) -> Result<Secret, CommandError> {
        config.store.address(&self.environment).map_err(|error| {
            CommandError::usage(format!("failed to read the password of the store: {error}"))
                .hint("`[store] password` says where it is")
        })
    }

    /// The ledger, for reading. A member may serve from it meanwhile.
    pub(super) async fn ledger(&self, config: &Config) -> Result<Ledger, CommandError> {
        let address = self.address(config)?;
        Ledger::open_read_only(address.expose(), self.clock.clone()).await.map_err(|error| store_error(&error))
    }

    /// The ledger, or `None` when nothing has served yet.
    pub(super) async fn ledger_if_any(&self, config: &Config) -> Result<Option<Ledger>, CommandError> {
        let address = self.address(config)?;
        match Ledger::open_read_only(address.expose(), self.clock.clone()).await {
            Ok(ledger) => Ok(Some(ledger)),
            Err(StoreError::Absent { .. }) => Ok(None),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// The API of the member that serves.
    pub(super) fn api(&self, config: &Config) -> Result<ApiClient, CommandError> {
        self.api_as(config, Role::Operate)
    }

    /// The same, for what takes another role.
    pub(super) fn api_as(&self, config: &Config, role: Role) -> Result<ApiClient, CommandError> {
        ApiClient::new(&config.server, &self.environment, role)
    }

    /// What the member that serves knows of its schedules, by name; nothing when none answers at once.
    pub(super) async fn standings(&self, config: &Config) -> HashMap<String, Standing> {
        let asked = async { self.api(config).ok()?.schedules().await.ok() };
        let answer = tokio::time::timeout(STANDING_PATIENCE, asked).await.ok().flatten();
        answer
            .into_iter()
            .flatten()
            .map(|schedule| (schedule.name, Standing { armed: schedule.armed, trouble: schedule.trouble }))
            .collect()
    }

    /// The instant that a time on the command line means.
    pub(super) fn time(
        &self,
        name: &str,
        argument: &TimeArgument,
        zone: &TimeZone,
        direction: Direction,
    ) -> Result<Timestamp, CommandError> {
        argument.resolve(zone, self.now(), direction).ok_or_else(|| {
            CommandError::usage(format!("failed to read `--{name}`: the time is out of range"))
                .hint("times are between the years -9999 and 9999")
        })
    }

    /// As [`Self::time`], in the past, for an argument that may be left out.
    pub(super) fn past(
        &self,
        name: &str,
        argument: Option<&TimeArgument>,
        zone: &TimeZone,
    ) -> Result<Option<Timestamp>, CommandError> {
        argument.map(|argument| self.time(name, argument, zone, Direction::Past)).transpose()
    }

    /// The zones that times are shown in.
    pub(super) fn zones(&self, config: &Config) -> Zones {
        Zones::new(self.global.timezone.clone(), &config.schedules)
    }
}

/// Which zone a time is shown in: that of `--timezone`, else that of its schedule.
pub(super) struct Zones {
    forced: Option<TimeZone>,
    by_schedule: HashMap<String, TimeZone>,
    common: TimeZone,
}

impl Zones {
    fn new(forced: Option<TimeZone>, schedules: &[std::sync::Arc<Schedule>]) -> Self {
        let by_schedule: HashMap<_, _> =
            schedules.iter().map(|schedule| (schedule.name.to_string(), schedule.timezone.clone())).collect();
        let first = schedules.first().map(|schedule| schedule.timezone.clone());
        let common = first.filter(|first| by_schedule.values().all(|zone| zone == first)).unwrap_or(TimeZone::UTC);
        Self { forced, by_schedule, common }
    }

    /// For times of a schedule, also of one that the configuration no longer has.
    pub(super) fn of(&self, schedule: &str) -> &TimeZone {
        self.forced.as_ref().or_else(|| self.by_schedule.get(schedule)).unwrap_or(&self.common)
    }

    /// For times of no schedule: the zone that all schedules share, else UTC.
    pub(super) fn common(&self) -> &TimeZone {
        self.forced.as_ref().unwrap_or(&self.common)
    }
}

/// The schedule of this name, or an error that suggests one.
pub(super) fn schedule_of(config: &Config, name: &str) -> Result<std::sync::Arc<Schedule>, CommandError> {
    find_schedule(&config.schedules, name).map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        CommandError::usage(format!("failed to {error}")).hint(hint)
    })
}

/// A fault of the ledger, for the reader.
pub(super) fn store_error(error: &StoreError) -> CommandError {
    let shown = match error {
        StoreError::BadCursor { .. } | StoreError::NotFound { .. } => {
            CommandError::failed(format!("failed to {error}"))
        }
        _ => CommandError::unreachable(format!("failed to {error}")),
    };
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        store_error(&error)
    }
}
