//! What is checked about an ensemble, from which value on it is bad, and how a verdict is told.
//!
//! Plain values: which checks there are ([`Check`], [`CATALOGUE`]), their limits ([`Thresholds`]), and
//! what a judgement says ([`Finding`], [`Report`]). How numbers are read from servers, and how each
//! check judges them, is in [`crate::health`].

mod canary;
mod catalogue;
mod page;
mod report;
mod threshold;

pub use canary::{canary_name, is_canary};
pub use catalogue::{CATALOGUE, Check, CheckInfo, Scope};
pub use page::health_markdown;
pub use report::{Finding, Quorum, Report, ServerState, ServerView, Verdict};
pub use threshold::{Direction, Limits, Thresholds};
