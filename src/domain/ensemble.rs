//! What becomes of an ensemble: from one report on its health after the other to events.
//!
//! A report says how things are, and is right at once; an event says that they have changed, and starts
//! DAGs and wakes people, so it is told once. [`Observation`] is what a report says about it,
//! [`Standing`] what was told so far and what is about to be, and [`Standing::judge`] the step from one
//! to the next, with the hysteresis in it. Time is an argument; what is not known changes nothing.

mod event;
mod observation;
mod pace;
mod standing;
#[cfg(test)]
mod tests;
mod track;

pub use event::{Condition, EnsembleEvent, Happening, Transition};
pub use observation::Observation;
pub use pace::Pace;
pub use standing::{Judged, Recount, Standing};
