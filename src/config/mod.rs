//! The file as people write it, turned into checked values.
//!
//! [`check`] reads a configuration and everything that it includes, and either returns values that
//! the rest may rely on or all faults at once. It needs no network and no secret.

pub mod environment;
pub mod fault;
pub mod model;
pub mod secret;

pub use environment::Environment;
pub use fault::{Fault, Faults, Severity};
pub use model::Config;
pub use secret::{Secret, SecretRef};
