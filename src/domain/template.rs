//! placeholder
/// A compiled condition.
#[derive(Debug, Clone)]
pub struct Expression;
/// A compiled conf.
#[derive(Debug, Clone)]
pub struct ConfTemplate;
