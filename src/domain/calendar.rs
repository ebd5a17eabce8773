//! placeholder
/// A parsed cron expression.
#[derive(Debug, Clone)]
pub struct CronExpression;
