//! The process's log: one line an event on standard error, as text or JSON.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::model::{Log, LogFormat, LogLevel};

/// Begins to log. What libraries say below a warning is left out unless the level is `trace`.
pub fn start(log: Log, colours: bool) -> Result<(), TryInitError> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    // The ZooKeeper client warns of each lost connection, which flowkeeper reports itself.
    let filter = Targets::new()
        .with_default(others)
        .with_target("flowkeeper", level)
        .with_target("zookeeper_client", if level == LevelFilter::TRACE { level } else { LevelFilter::OFF });
    let writer = std::io::stderr;
    let layer = match log.format {
        LogFormat::Text => {
            tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).with_target(false).boxed()
        }
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().with_writer(writer).json().flatten_event(true).with_target(false).boxed()
        }
    };
    // In front of the layer, not as its own: a layer's own filter remembers what it said last, and libraries ask
    // whether a level is enabled and then say nothing (sqlx, for each statement), so the next line would be lost.
    tracing_subscriber::registry().with(filter).with(layer).try_init()
}
