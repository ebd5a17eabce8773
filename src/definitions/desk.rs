//! Where definitions are handed in: checked whole, compared with what they were made from, written.
//!
//! The member that is asked decides with its own program, whatever the one who pushes has checked before.
//! Of two people who push at once one is told, by the version that each began with; what is asked twice,
//! since an answer was lost, is done once.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::bundle::{self, Bundle};
use super::follower::Parts;
use super::history;
use super::znodes::{self, Found};
use crate::config::model::DefinitionsSource;
use crate::config::{self, Config, Document, Fault, Faults, Severity, version_of};
use crate::store::model::NewAudit;
use crate::store::{Leadership, SHORTEST_START, StoreError};
use crate::zookeeper::ZooKeeperError;

/// How long a push may take from the first part to the last, before it is given up: its parts would be
/// taken for abandoned ones.
const WRITE_PATIENCE: Duration = Duration::from_secs(45);

/// What somebody hands in.
#[derive(Debug, Clone)]
pub struct Push {
    /// The whole set.
    pub documents: Vec<Document>,
    /// The version that it was made from.
    pub base: Option<String>,
    /// Over whatever is there.
    pub force: bool,
    /// Who.
    pub author: String,
    /// Why.
    pub message: Option<String>,
    /// Tells this push from any other, so that it is safe to repeat.
    pub push: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pushed {
    /// The digest of the definitions.
    pub version: String,
    /// The version of the znode that holds them.
    pub zookeeper_version: i32,
    /// What they took the place of; null where there was nothing.
    pub previous_version: Option<String>,
    /// False where the same definitions were there already, and nothing was written.
    pub changed: bool,
    /// How many schedules there are in them.
    pub schedules: usize,
    /// What is probably not meant.
    pub warnings: Vec<Fault>,
}

/// Why it was not done; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The definitions are files here.
    #[error("push the definitions: this member takes them from its files ([server] definitions = \"file\")")]
    FromFiles,
    /// The definitions are files until the restart, which the main file announces with another home.
    #[error("push the definitions: this member has a session with another ensemble or root than its main file names")]
    AnotherHome,
    /// A shadow writes nothing into ZooKeeper.
    #[error("push the definitions: this member is a shadow, which writes nothing into ZooKeeper")]
    Shadow,
    /// There is no session with ZooKeeper. Nothing was done.
    #[error("push the definitions: ZooKeeper cannot be reached; nothing was done")]
    Away,
    /// The set has faults.
    #[error("push the definitions: there {} in them", mistakes(.0))]
    Faults(Faults),
    /// Nothing is written in the set. An empty file is one that could not be written more often than one that
    /// is meant, and no schedule would be left.
    #[error("push the definitions: there is nothing in them, not even a comment")]
    Empty,
    /// They do not fit into ZooKeeper.
    #[error("push the definitions: {0} bytes are more than ZooKeeper is given to hold")]
    TooLarge(usize),
    /// Somebody else has pushed since.
    #[error("push the definitions: {0}")]
    Conflict(Box<Conflict>),
    /// ZooKeeper refused it. Nothing was done.
    #[error("write the definitions to ZooKeeper: {0}")]
    Refused(ZooKeeperError),
    /// It may have been done.
    #[error("learn whether the definitions were written to ZooKeeper: {0}")]
    Unknown(String),
    /// The history has no such version.
    #[error("find version `{0}` of the definitions: the history has none")]
    NoVersion(String),
    /// The history has it, without what may be secret in it.
    #[error("roll back to version {0}: it was read from files, and history does not keep what may be secret in those")]
    NotWhole(String),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PushError {
    /// What to do about a version that is not there.
    pub const NO_VERSION_HINT: &str =
        "`flowkeeper config history` lists them; name one by its number, or by four characters of its version or more";

    /// What a person can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::FromFiles => {
                "edit the files; or write definitions = \"zookeeper\" in [server] of every member, then push, then restart \
                 them: docs/live-configuration.md has the steps"
                    .into()
            }
            Self::AnotherHome => "[zookeeper] takes a restart: move there first, and then the definitions".into(),
            Self::Shadow => "push through a member that is none".into(),
            Self::Away => "is ZooKeeper running? The definitions in force stay; push again later".into(),
            Self::Empty => "was the file written? If no schedules are meant, say so in a comment".into(),
            Self::Faults(_) => "correct them; `flowkeeper config diff FILE` shows all of them too".into(),
            Self::TooLarge(_) => "split the schedules between several roots, each with members of its own".into(),
            Self::Conflict(conflict) => conflict.hint(),
            Self::Refused(error) => error.hint().into(),
            Self::Unknown(_) => "push again: what was done is not done twice".into(),
            Self::NoVersion(_) => Self::NO_VERSION_HINT.into(),
            Self::NotWhole(version) => {
                format!("`flowkeeper config history {version}` prints it; complete it, and push that")
            }
            Self::Store(error) => return error.hint(),
        })
    }
}

/// How many of the faults are errors, after "there".
fn mistakes(faults: &Faults) -> String {
    match faults.faults.iter().filter(|fault| fault.severity == Severity::Error).count() {
        1 => "is 1 mistake".to_owned(),
        count => format!("are {count} mistakes"),
    }
}

/// What is in ZooKeeper in place of what the one who pushes began with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another set than the one named.
    #[error("{} is in ZooKeeper, which {} pushed{}; you began with {base}", current.version, current.by(), current.when())]
    Changed {
        /// What the push began with.
        base: String,
        /// What is there.
        current: Current,
    },
    /// A set, and the push does not say what it began with.
    #[error("{} is in ZooKeeper, which {} pushed{}, and nothing says that you have seen it", current.version, current.by(), current.when())]
    Unseen {
        /// What is there.
        current: Current,
    },
    /// What only a newer program understands.
    #[error("what is in ZooKeeper {0}")]
    Newer(String),
    /// Somebody was quicker by a moment.
    #[error("somebody else has pushed at this moment")]
    AtOnce,
}

impl Conflict {
    fn hint(&self) -> String {
        match self {
            Self::Changed { base, .. } => format!(
                "`flowkeeper config diff --from {base}` shows what has changed since; `flowkeeper config pull FILE` fetches it, \
                 `--force` overrides it"
            ),
            Self::Unseen { current } => format!(
                "`flowkeeper config diff FILE` shows what would change; then name what you have seen with --base {}, or \
                 override whatever is there with --force",
                current.version
            ),
            Self::Newer(_) => "upgrade this member, or push with --force".into(),
            Self::AtOnce => "look at it with `flowkeeper config diff FILE`".into(),
        }
    }
}

/// The set that is in ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The digest of its documents.
    pub version: String,
    /// Who pushed it.
    pub author: Option<String>,
    /// When.
    pub at: Option<jiff::Timestamp>,
    /// The push that it is of.
    pub push: Option<String>,
}

impl Current {
    fn of(bundle: &Bundle) -> Self {
        let Bundle { version, author, at, push, .. } = bundle;
        Self { version: version.clone(), author: author.clone(), at: *at, push: push.clone() }
    }

    fn by(&self) -> &str {
        self.author.as_deref().unwrap_or("somebody")
    }

    fn when(&self) -> String {
        self.at.map(|at| format!(" at {at:.0}")).unwrap_or_default()
    }
}

/// What a push meets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Nothing, or what is of no use.
    Free,
    /// What only a newer program understands.
    Newer(String),
    /// A set.
    Taken(Current),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It is written over what was read.
    Write,
    /// It is there already.
    There,
    /// It is not written.
    Conflict(Conflict),
}

/// Judges a push of the set `version` by what is there. Who pushes says what they have seen: the name of an
/// author proves nothing, since one name may stand for several people, and for pipelines that overtake each
/// other.
fn judge(place: &Place, version: &str, push: &Push) -> Verdict {
    let current = match place {
        Place::Free => return Verdict::Write,
        Place::Newer(_) if push.force => return Verdict::Write,
        Place::Newer(what) => return Verdict::Conflict(Conflict::Newer(what.clone())),
        Place::Taken(current) => current,
    };
    if current.version == version || current.push.as_deref() == Some(&push.push) {
        return Verdict::There;
    }
    let is_base = |base: &str| base.len() >= SHORTEST_START && current.version.starts_with(&base.to_ascii_lowercase());
    match &push.base {
        _ if push.force => Verdict::Write,
        Some(base) if is_base(base) => Verdict::Write,
        Some(base) => Verdict::Conflict(Conflict::Changed { base: base.clone(), current: current.clone() }),
        None => Verdict::Conflict(Conflict::Unseen { current: current.clone() }),
    }
}

/// Takes definitions. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// `None` for a shadow, and without a home ensemble.
    parts: Option<Parts>,
    /// The configuration that the process began with.
    main: Arc<Config>,
}

impl Desk {
    /// For a member that began with the main file `main`.
    pub fn new(parts: Option<Parts>, main: Arc<Config>) -> Self {
        Self { parts, main }
    }

    /// What it works with. A member whose definitions are files takes a set once its main file says that they
    /// are in ZooKeeper, so that the set is there when it is restarted: no schedule ends in between.
    async fn parts(&self) -> Result<&Parts, PushError> {
        let from_files = self.main.server.definitions == DefinitionsSource::File;
        let parts = match &self.parts {
            Some(parts) if from_files => parts,
            Some(parts) => return Ok(parts),
            None if from_files => return Err(PushError::FromFiles),
            None => return Err(PushError::Shadow),
        };
        let (file, environment) = (Arc::clone(&parts.main_file), Arc::clone(&parts.environment));
        let reading = tokio::task::spawn_blocking(move || config::check(&file, &environment));
        match reading.await {
            Ok(Ok((next, _))) => announced(&self.main, &next).map(|()| parts),
            // What is wrong with the main file is told when the set is checked with it, after the restart.
            Ok(Err(_)) | Err(_) => Err(PushError::FromFiles),
        }
    }

    /// The set that is in ZooKeeper now, and the version of its znode; `None` if there is none.
    pub async fn read(&self) -> Result<Option<(Bundle, i32)>, PushError> {
        match find(self.parts().await?).await? {
            Found::Set(bundle, stat) => Ok(Some((*bundle, stat.version))),
            Found::Nothing { .. } | Found::Rubbish(..) => Ok(None),
        }
    }

    /// Puts a set in force: writes it to ZooKeeper, from where all members take it.
    pub async fn push(&self, leadership: &Leadership, push: Push, audit: NewAudit) -> Result<Pushed, PushError> {
        let parts = self.parts().await?;
        if push.documents.iter().all(|document| document.text.trim().is_empty()) {
            return Err(PushError::Empty);
        }
        let version = version_of(&push.documents);
        let (schedules, warnings) = check(parts, &push.documents).await?;
        let found = find(parts).await?;
        let (place, previous_version) = match &found {
            Found::Rubbish(rubbish @ bundle::Rubbish::Newer(_), _) => (Place::Newer(rubbish.to_string()), None),
            Found::Nothing { .. } | Found::Rubbish(..) => (Place::Free, None),
            Found::Set(bundle, _) => (Place::Taken(Current::of(bundle)), Some(bundle.version.clone())),
        };
        let pushed = |zookeeper_version, changed| Pushed {
            version: version.clone(),
            zookeeper_version,
            previous_version: previous_version.clone(),
            changed,
            schedules,
            warnings,
        };
        let base = found.stat().map(|stat| stat.version);
        match judge(&place, &version, &push) {
            Verdict::Conflict(conflict) => return Err(PushError::Conflict(Box::new(conflict))),
            Verdict::There => return Ok(pushed(base.unwrap_or_default(), false)),
            Verdict::Write => {}
        }
        let set = Bundle {
            version: version.clone(),
            at: Some(parts.clock.now()),
            author: Some(push.author),
            message: push.message,
            push: Some(push.push),
            documents: push.documents,
        };
        let zookeeper_version = write(parts, &set, base).await?;
        let detail = previous_version.as_ref().map(|previous| format!("in place of {previous}"));
        // It is done, and the znode says by whom; an audit that fails must not make it look undone.
        let audit = NewAudit { target: version.clone(), detail, ..audit };
        if let Err(error) = parts.ledger.write_audit(leadership, audit).await {
            tracing::error!(version, %error, "definitions were pushed, and the audit has no line of it");
        }
        tracing::info!(version, zookeeper_version, author = set.author, "definitions were pushed to ZooKeeper");
        Ok(pushed(zookeeper_version, true))
    }

    /// Puts a version of the history in force again, in place of what `push` says that its author has seen.
    pub async fn roll_back(
        &self,
        leadership: &Leadership,
        which: &str,
        push: Push,
        audit: NewAudit,
    ) -> Result<Pushed, PushError> {
        let parts = self.parts().await?;
        let Some((entry, text)) = parts.ledger.definitions_of(which).await? else {
            return Err(PushError::NoVersion(which.to_owned()));
        };
        if entry.source != super::Source::Zookeeper.as_str() {
            return Err(PushError::NotWhole(entry.version));
        }
        let documents = history::documents(&entry, &text)?;
        self.push(leadership, Push { documents, ..push }, audit).await
    }
}

/// Whether the main file of a member whose definitions are files says by now that they are in ZooKeeper, in the
/// ensemble and below the root that the member works with.
fn announced(main: &Config, next: &Config) -> Result<(), PushError> {
    match next.server.definitions {
        DefinitionsSource::File => Err(PushError::FromFiles),
        DefinitionsSource::ZooKeeper if next.zookeeper != main.zookeeper => Err(PushError::AnotherHome),
        DefinitionsSource::ZooKeeper => Ok(()),
    }
}

/// What is in ZooKeeper now.
async fn find(parts: &Parts) -> Result<Found, PushError> {
    let session = parts.ensemble.session().ok_or(PushError::Away)?;
    let found = async {
        session.sync().await?;
        znodes::read(&session, &parts.path).await
    };
    found.await.map_err(|error| {
        if error.ends_session() {
            session.give_up();
            PushError::Away
        } else {
            PushError::Refused(error)
        }
    })
}

/// Writes a set over what was there in the version `base`; the version of the znode.
async fn write(parts: &Parts, set: &Bundle, base: Option<i32>) -> Result<i32, PushError> {
    let layout = bundle::lay_out(set).map_err(PushError::TooLarge)?;
    let session = parts.ensemble.session().ok_or(PushError::Away)?;
    let written = tokio::time::timeout(WRITE_PATIENCE, znodes::write(&session, &parts.path, &layout, base)).await;
    match written {
        Ok(Ok(Some(version))) => Ok(version),
        Ok(Ok(None)) => Err(PushError::Conflict(Box::new(Conflict::AtOnce))),
        Ok(Err(error)) if !error.ends_session() => Err(PushError::Refused(error)),
        Ok(Err(error)) => {
            session.give_up();
            Err(PushError::Unknown(error.to_string()))
        }
        Err(_) => Err(PushError::Unknown(format!("no answer within {} s", WRITE_PATIENCE.as_secs()))),
    }
}

/// How many schedules a set has, and what is probably not meant in it.
async fn check(parts: &Parts, documents: &[Document]) -> Result<(usize, Vec<Fault>), PushError> {
    let (parts, documents) = (parts.clone(), documents.to_vec());
    let check = move || config::check_definitions(&parts.main_file, &documents, &parts.environment);
    match tokio::task::spawn_blocking(check).await {
        Ok(Ok((config, warnings))) => Ok((config.schedules.len(), warnings)),
        Ok(Err(faults)) => Err(PushError::Faults(faults)),
        Err(panic) => Err(PushError::Unknown(format!("checking them failed: {panic}"))),
    }
}

/// A set as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Definitions {
    /// The digest of the definitions.
    pub version: String,
    /// The version of the znode that holds them.
    pub zookeeper_version: i32,
    /// When they were pushed.
    pub at: Option<jiff::Timestamp>,
    /// Who pushed them.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// What they say.
    pub documents: Vec<Document>,
}

impl Definitions {
    /// What a znode of this version holds.
    pub fn new(bundle: Bundle, zookeeper_version: i32) -> Self {
        let Bundle { version, at, author, message, documents, .. } = bundle;
        Self { version, zookeeper_version, at, author, message, documents }
    }
}

/// Who pushes, as everybody is told: the token, and what the caller says of itself.
pub fn author(actor: &str, claimed: Option<&str>) -> String {
    match claimed.map(str::trim).filter(|claimed| !claimed.is_empty()) {
        Some(claimed) if actor == "local" => claimed.to_owned(),
        Some(claimed) => format!("{actor} ({claimed})"),
        None => actor.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(base: Option<&str>, force: bool) -> Push {
        Push {
            documents: vec![Document { name: "d.toml".into(), text: "# nothing\n".into() }],
            base: base.map(Into::into),
            force,
            author: "alice@laptop".into(),
            message: None,
            push: "7".into(),
        }
    }

    fn current(version: &str, author: &str, push: &str) -> Current {
        Current {
            version: version.into(),
            author: Some(author.into()),
            at: "2026-11-22T02:30:00.5Z".parse().ok(),
            push: Some(push.into()),
        }
    }

    #[test]
    fn a_push_goes_over_what_its_author_has_seen() {
        let bobs = Place::Taken(current("aaaaaaaaaaaa", "bob@desk", "1"));
        let own = Place::Taken(current("aaaaaaaaaaaa", "alice@laptop", "1"));
        let newer = Place::Newer("is newer".into());
        let (write, there, conflict) = ("write", "there", "conflict");
        let cases = [
            ("the first push", &Place::Free, None, false, write),
            ("the znode was deleted", &Place::Free, Some("aaaaaaaaaaaa"), false, write),
            ("what was pulled is still there", &bobs, Some("aaaaaaaaaaaa"), false, write),
            ("a version by its beginning", &bobs, Some("AAAA"), false, write),
            ("too little of a version", &bobs, Some("aaa"), false, conflict),
            ("somebody has pushed since", &bobs, Some("bbbbbbbbbbbb"), false, conflict),
            ("the same by force", &bobs, Some("bbbbbbbbbbbb"), true, write),
            ("nobody knows what it was made from", &bobs, None, false, conflict),
            ("the last push was in one's own name", &own, None, false, conflict),
            ("the same, and it is named", &own, Some("aaaaaaaaaaaa"), false, write),
            ("the same by force", &own, None, true, write),
            ("one's own, and another began with something else", &own, Some("bbbbbbbbbbbb"), false, conflict),
            ("a newer program's", &newer, Some("aaaaaaaaaaaa"), false, conflict),
            ("a newer program's by force", &newer, None, true, write),
            ("the same again", &Place::Taken(current("cccccccccccc", "bob@desk", "1")), None, false, there),
            (
                "the answer was lost",
                &Place::Taken(current("cccccccccccd", "x", "7")),
                Some("bbbbbbbbbbbb"),
                false,
                there,
            ),
            ("the same again by force", &Place::Taken(current("cccccccccccc", "bob", "1")), None, true, there),
        ];
        for (case, place, base, force, expected) in cases {
            let verdict = match judge(place, "cccccccccccc", &push(base, force)) {
                Verdict::Write => write,
                Verdict::There => there,
                Verdict::Conflict(_) => conflict,
            };
            assert_eq!(verdict, expected, "{case}");
        }
    }

    #[test]
    fn a_conflict_says_who_and_when() {
        let Verdict::Conflict(conflict) =
            judge(&Place::Taken(current("aaaaaaaaaaaa", "bob@desk", "1")), "c", &push(Some("bbbbbbbbbbbb"), false))
        else {
            panic!("no conflict")
        };
        assert_eq!(
            conflict.to_string(),
            "aaaaaaaaaaaa is in ZooKeeper, which bob@desk pushed at 2026-11-22T02:30:00Z; you began with bbbbbbbbbbbb"
        );
    }

    #[test]
    fn the_token_stands_before_what_a_caller_says_of_itself() {
        for (actor, claimed, expected) in [
            ("local", Some("alice@laptop"), "alice@laptop"),
            ("local", None, "local"),
            ("ops", Some("alice@laptop"), "ops (alice@laptop)"),
            ("ops", Some(" "), "ops"),
        ] {
            assert_eq!(author(actor, claimed), expected);
        }
    }
}
