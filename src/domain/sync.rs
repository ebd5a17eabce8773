//! Keeping entries of Airflow (variables, pools, connections) in step with znodes: what an entry is,
//! how it is told from what others made, and what a comparison leads to.
//!
//! Everything here is pure. [`plan::plan`] is the table of cases that the whole feature rests on: only
//! what flowkeeper wrote is ever changed or deleted. Values may be secrets, so no type here shows one.

pub mod definition;
pub mod digest;
pub mod entry;
pub mod json;
pub mod mark;
pub mod plan;
pub mod shown;
mod uri;
