//! The way to ZooKeeper: sessions, reads with a limit of time, and watches that only hint.
//!
//! This is the one place that names the client crate. It knows nothing of schedules or runs.
//! An [`Ensemble`] keeps a session up for as long as it lives; a [`Session`] is one connection, and
//! everything that was read through one belongs to one unbroken view of the znodes. A [`Membership`]
//! owns the znodes that show that this process lives, and a [`SessionLock`] a place in the queue for a
//! lock, through sessions that outlive their connections.

mod check;
mod connect;
pub mod contender;
mod diagnose;
mod election;
mod ensemble;
mod error;
mod exposure;
mod lasting;
mod lock;
mod mailbox;
mod membership;
mod one_shot;
mod registry;
mod session;
mod settings;
mod tls;
mod visit;
mod words;

pub use check::{CheckFault, check};
pub use ensemble::{Ensemble, SessionStatus, Subscription};
pub use error::ZooKeeperError;
pub use exposure::{exposed, exposure_hint};
pub use lock::{Holding, LockParts, SessionLock};
pub use mailbox::{Arming, Interest, Touched};
pub use membership::{Membership, MembershipParts, Standing, read_members};
pub use registry::{Member, MemberCard, member_id};
pub use session::{Lifetime, Session};
pub use settings::{Sasl, Server, Settings, SettingsSource, Tls};
pub use tls::{TlsClient, TlsMaterial};
pub use visit::{Hint, Visit};
pub use words::{NoWord, ask_word};
