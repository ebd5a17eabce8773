//! What definitions that were pushed may have a member do: which programs it runs, which variables and files
//! it reads.
//!
//! Who may write the znode does not own the hosts. A pushed set says whom to call and with which secret, so
//! without a limit it could run programs on every member, and have the password of the store sent anywhere.
//! The main file belongs to the host and draws the limit ([`Pushed`]); here is what follows for one wish. The
//! decisions are pure; where a path really leads is asked of a function.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::model::{DefinitionsSource, Pushed, Server, Store, ZooKeeper};
use super::secret::SecretRef;

/// Variables that are a member's own, by the beginning of their names: values of the main file, and what
/// libpq reads.
const OWN_PREFIXES: [&str; 2] = ["FLOWKEEPER_", "PGPASS"];

/// What a ledger in SQLite adds to the name of its file.
const SQLITE_SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// What a file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What it says is sent to somebody.
    Secret,
    /// A certificate or its key: whatever else it holds goes nowhere.
    Certificate,
}

/// Why a wish is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) message: String,
    pub(super) hint: String,
}

/// The limit for one main file.
#[derive(Debug)]
pub(super) struct Guard {
    commands: Vec<Vec<String>>,
    variables: GlobSet,
    variables_written: String,
    own_variables: HashSet<String>,
    /// Where relative paths start from, absolute.
    directory: PathBuf,
    areas: Vec<Area>,
    files_written: String,
    /// Files of the member itself, absolute.
    own_files: Vec<PathBuf>,
}

/// A glob of files.
#[derive(Debug)]
struct Area {
    matcher: GlobMatcher,
    /// The directory that its first wildcard is in; `None` for one file that is named.
    root: Option<PathBuf>,
}

impl Guard {
    /// The limit that the main file `file` draws, of which these are the sections.
    pub(super) fn new(
        file: &Path,
        server: Option<&Server>,
        store: Option<&Store>,
        zookeeper: Option<&ZooKeeper>,
    ) -> Self {
        let directory = absolute(file.parent().unwrap_or(Path::new("")));
        let pushed = server.map_or_else(Pushed::default, |server| server.pushed.clone());
        let Pushed { commands, env, files } = pushed;
        let mut variables = GlobSetBuilder::new();
        // Patterns that are no globs are faults of the main file.
        for glob in env.iter().filter_map(|pattern| GlobBuilder::new(pattern).build().ok()) {
            variables.add(glob);
        }
        let mut guard = Self {
            commands,
            variables: variables.build().unwrap_or_default(),
            variables_written: listed(&env),
            own_variables: HashSet::new(),
            areas: files.iter().filter_map(|pattern| Area::new(&directory, pattern)).collect(),
            files_written: listed(&files),
            own_files: vec![absolute(file)],
            directory,
        };
        let tokens = server.iter().flat_map(|server| &server.tokens).map(|token| &token.value);
        let connection = zookeeper.map(|zookeeper| &zookeeper.connection);
        let digest = connection.and_then(|connection| connection.auth.as_ref()).map(|auth| &auth.credential);
        let sasl = connection.and_then(|connection| connection.sasl.as_ref()).map(|sasl| &sasl.password);
        for secret in tokens.chain(store.and_then(|store| store.password.as_ref())).chain(digest).chain(sasl) {
            match secret {
                SecretRef::Env(name) => drop(guard.own_variables.insert(name.clone())),
                SecretRef::File(path) => guard.own_files.push(absolute(path)),
            }
        }
        let identity = connection.and_then(|connection| connection.tls.as_ref()).and_then(|tls| tls.identity.as_ref());
        guard.own_files.extend(identity.map(|identity| absolute(&identity.key)));
        guard.own_files.extend(store.into_iter().flat_map(files_of_store));
        guard
    }

    /// Whether `auth.command` may be this.
    pub(super) fn command(&self, command: &[String]) -> Result<(), Denied> {
        if self.commands.iter().any(|allowed| allowed == command) {
            return Ok(());
        }
        let program = command.first().map_or("", String::as_str);
        Err(Denied {
            message: format!("definitions that are pushed may not have this member run `{program}` like this"),
            hint: "keep the token in a file or a variable; or allow this command, word for word, in the main file of \
                   every member: [server] pushed = { commands = [[\"program\", \"argument\"]] }"
                .to_owned(),
        })
    }

    /// Whether a secret may be in this environment variable.
    pub(super) fn variable(&self, name: &str) -> Result<(), Denied> {
        if self.own_variables.contains(name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Denied {
                message: format!("the environment variable {name} belongs to the member itself, not to what is pushed"),
                hint: "keep what is needed here in a variable of its own".to_owned(),
            });
        }
        if self.variables.is_match(name) {
            return Ok(());
        }
        Err(Denied {
            message: format!("definitions that are pushed may not read the environment variable {name}"),
            hint: format!(
                "they may read {}; others are added to `env` of [server] pushed in the main file of every member",
                self.variables_written
            ),
        })
    }

    /// Whether this file may be read. `real` tells where a path leads, `None` where nothing is there yet.
    pub(super) fn file(
        &self,
        written: &str,
        purpose: Purpose,
        real: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Result<(), Denied> {
        let denied = |message: String, hint: String| Err(Denied { message, hint });
        if Path::new(written).components().any(|part| part == Component::ParentDir) {
            return denied(
                format!("\"{written}\" leaves a directory with `..`, which definitions that are pushed may not"),
                "write where the file is without `..`".to_owned(),
            );
        }
        let path: PathBuf = self.directory.join(written).components().collect();
        let found = real(&path);
        let is_own = |path: &Path| self.own_files.iter().any(|own| own == path || real(own).as_deref() == Some(path));
        if purpose == Purpose::Secret && (is_own(&path) || found.as_deref().is_some_and(is_own)) {
            return denied(
                format!("the file \"{written}\" belongs to the member itself, not to what is pushed"),
                "keep what is needed here in a file of its own".to_owned(),
            );
        }
        let mut areas = self.areas.iter().filter(|area| area.covers(&path)).peekable();
        let add = "to `files` of [server] pushed in the main file of every member";
        if areas.peek().is_none() {
            return denied(
                format!("definitions that are pushed may not read the file \"{written}\""),
                format!(
                    "they may read {} from the directory of the main file on; others are added {add}",
                    self.files_written
                ),
            );
        }
        // A link was made by who owns the host; one that leads out of the area is named, to be sure.
        let stays = |found: &Path| areas.any(|area| area.keeps(found, &real));
        match found {
            Some(found) if !{ stays }(&found) => denied(
                format!("the file \"{written}\" is a link that leads to {}", found.display()),
                format!("add \"{written}\" itself {add}, if that is meant"),
            ),
            _ => Ok(()),
        }
    }
}

impl Area {
    /// The area of a pattern; `None` for what is no glob.
    fn new(directory: &Path, pattern: &str) -> Option<Self> {
        let is_wild = |part: &Path| part.to_string_lossy().contains(['*', '?', '[', '{']);
        let parts: Vec<_> = Path::new(pattern).components().map(|part| PathBuf::from(part.as_os_str())).collect();
        let root = parts.iter().position(|part| is_wild(part)).map(|first| {
            let above: PathBuf = parts[..first].iter().collect();
            directory.join(above).components().collect()
        });
        let cleaned: PathBuf = parts.iter().collect();
        let whole = if cleaned.is_absolute() {
            cleaned.to_string_lossy().into_owned()
        } else {
            format!("{}/{}", globset::escape(&directory.to_string_lossy()), cleaned.display())
        };
        let glob = GlobBuilder::new(&whole).literal_separator(true).build().ok()?;
        Some(Self { matcher: glob.compile_matcher(), root })
    }

    /// Whether a path is in it. As in a shell, a wildcard finds nothing that is hidden.
    fn covers(&self, path: &Path) -> bool {
        let is_hidden = |part: Component<'_>| part.as_os_str().to_string_lossy().starts_with('.');
        let below = self.root.as_ref().and_then(|root| path.strip_prefix(root).ok());
        self.matcher.is_match(path) && !below.is_some_and(|below| below.components().any(is_hidden))
    }

    /// Whether a file that was found by a path of it is still in it: below the same directory, or named.
    fn keeps(&self, found: &Path, real: impl Fn(&Path) -> Option<PathBuf>) -> bool {
        match &self.root {
            None => true,
            Some(root) => real(root).is_some_and(|root| found.starts_with(root)),
        }
    }
}

/// The files of a ledger, and those that its URL names.
fn files_of_store(store: &Store) -> Vec<PathBuf> {
    if let Some(path) = store.url.strip_prefix("sqlite://") {
        return SQLITE_SUFFIXES.iter().map(|suffix| absolute(Path::new(&format!("{path}{suffix}")))).collect();
    }
    let url = store.url.parse::<reqwest::Url>().ok();
    let key = url.and_then(|url| {
        let mut parameters = url.query_pairs();
        parameters.find(|(name, _)| name == "sslkey").map(|(_, path)| absolute(Path::new(&*path)))
    });
    key.into_iter().collect()
}

/// The path from the root of the file system on, links as they are written.
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn listed(patterns: &[String]) -> String {
    if patterns.is_empty() { "none".to_owned() } else { format!("what matches `{}`", patterns.join("`, `")) }
}

/// Who can write definitions where they are in ZooKeeper and the session has no credentials: the warning, and
/// what to do.
pub(super) fn open_to_all(server: &Server, zookeeper: &ZooKeeper) -> Option<(String, &'static str)> {
    let connection = &zookeeper.connection;
    let has_identity = connection.auth.is_some()
        || connection.sasl.is_some()
        || connection.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
    (server.definitions == DefinitionsSource::ZooKeeper && !has_identity).then(|| {
        let message = format!(
            "everybody who reaches ZooKeeper at {} can write the definitions: without credentials the znodes below {} \
             are open to all",
            connection.connect, zookeeper.root
        );
        (message, "add `auth`, `sasl`, or `tls` with a certificate; see docs/zookeeper-security.md")
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::{Connection, DefinitionsSource, Role, Token, ZooKeeperAuth};
    use super::*;

    fn guard(pushed: Pushed) -> Guard {
        let server = Server {
            listen: ([127, 0, 0, 1], 1).into(),
            advertise: None,
            definitions: DefinitionsSource::ZooKeeper,
            pushed,
            tokens: vec![Token {
                name: "ci".into(),
                value: SecretRef::Env("AIRFLOW_CI".into()),
                role: Role::Admin,
                team: None,
            }],
        };
        let store = Store {
            url: "sqlite:///etc/fk/ledger.db".into(),
            password: Some(SecretRef::File("/etc/fk/secrets/store".into())),
            retention: std::time::Duration::ZERO,
        };
        let digest = ZooKeeperAuth { scheme: "digest".into(), credential: SecretRef::Env("AIRFLOW_ZK".into()) };
        let connection = Connection {
            connect: "h:1".into(),
            session_timeout: std::time::Duration::ZERO,
            auth: Some(digest),
            tls: None,
            sasl: None,
        };
        let zookeeper = ZooKeeper { connection, root: "/flowkeeper".into() };
        Guard::new(Path::new("/etc/fk/flowkeeper.toml"), Some(&server), Some(&store), Some(&zookeeper))
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_command_is_allowed_word_for_word() {
        let allowed = Pushed { commands: vec![words(&["gcloud", "auth", "token"])], ..Pushed::default() };
        for (policy, command, expected) in [
            (Pushed::default(), &["gcloud", "auth", "token"][..], false),
            (allowed.clone(), &["gcloud", "auth", "token"], true),
            (allowed.clone(), &["gcloud", "auth", "token", "--verbosity=debug"], false),
            (allowed.clone(), &["gcloud auth token"], false),
            (allowed.clone(), &["gcloud"], false),
            (allowed, &[], false),
        ] {
            assert_eq!(guard(policy).command(&words(command)).is_ok(), expected, "{command:?}");
        }
        let denied = guard(Pushed::default()).command(&words(&["sh", "-c", "hunter2"])).unwrap_err();
        assert!(denied.message.contains("`sh`") && !format!("{denied:?}").contains("hunter2"), "{denied:?}");
    }

    #[test]
    fn variables_are_those_listed_and_never_the_members_own() {
        let env = |env: &[&str]| Pushed { env: words(env), ..Pushed::default() };
        for (policy, name, expected) in [
            (Pushed::default(), "AIRFLOW_PASSWORD", true),
            (Pushed::default(), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", false),
            (Pushed::default(), "MY_AIRFLOW_PASSWORD", false),
            (Pushed::default(), "HOME", false),
            (env(&[]), "AIRFLOW_PASSWORD", false),
            (env(&["TEAM_?", "X"]), "TEAM_A", true),
            (env(&["TEAM_?", "X"]), "AIRFLOW_PASSWORD", false),
            // However wide the list: what the main file names, and what a member itself reads.
            (env(&["*"]), "HOME", true),
            (env(&["*"]), "AIRFLOW_CI", false),
            (env(&["*"]), "AIRFLOW_ZK", false),
            (env(&["*"]), "FLOWKEEPER_TOKEN", false),
            (env(&["*"]), "PGPASSWORD", false),
        ] {
            assert_eq!(guard(policy).variable(name).is_ok(), expected, "{name}");
        }
    }

    #[test]
    fn files_are_those_below_the_main_file_or_listed() {
        let files = |files: &[&str]| Pushed { files: words(files), ..Pushed::default() };
        let default = Pushed::default;
        // What is a link, and where it leads; nothing else is one, and `missing` is not there.
        let real = |path: &Path| match path.to_str().unwrap_or_default() {
            path if path.contains("missing") => None,
            "/etc/fk/secrets/token" => Some("/etc/fk/secrets/..2026/token".into()),
            "/etc/fk/shadow" | "/run/links/b" => Some("/etc/shadow".into()),
            "/etc/fk/alias" => Some("/etc/fk/secrets/store".into()),
            "/run/links/a" => Some("/run/links/..data/a".into()),
            path => Some(path.into()),
        };
        for (policy, written, expected) in [
            (default(), "token", true),
            (default(), "./deep/token", true),
            (default(), "/etc/fk/token", true),
            (default(), "missing", true),
            (default(), "../token", false),
            (default(), "deep/../../token", false),
            (default(), "/etc/shadow", false),
            (default(), "/etc/fk/../shadow", false),
            (default(), ".ssh/id", false),
            (default(), "deep/.hidden/token", false),
            // The member's own.
            (default(), "flowkeeper.toml", false),
            (default(), "./flowkeeper.toml", false),
            (default(), "ledger.db", false),
            (default(), "ledger.db-wal", false),
            (default(), "secrets/store", false),
            (files(&["secrets/store"]), "secrets/store", false),
            // Links: as Kubernetes makes them, out of the directory, to something of the member's own.
            (default(), "secrets/token", true),
            (default(), "shadow", false),
            (files(&["shadow"]), "shadow", true),
            (default(), "alias", false),
            (files(&["alias"]), "alias", false),
            // A list of its own.
            (files(&[]), "token", false),
            (files(&["secrets/*"]), "secrets/token", true),
            (files(&["secrets/*"]), "secrets/deep/token", false),
            (files(&["secrets/**"]), "secrets/deep/token", true),
            (files(&["secrets/**"]), "token", false),
            (files(&["/run/links/*"]), "/run/links/a", true),
            (files(&["/run/links/*"]), "/run/links/b", false),
            (files(&["/run/links/*"]), "/run/links/.hidden", false),
            (files(&[".ssh/*"]), ".ssh/id", true),
            (files(&["/**"]), "/etc/passwd", true),
        ] {
            let judged = guard(policy.clone()).file(written, Purpose::Secret, real);
            assert_eq!(judged.is_ok(), expected, "{written}: {judged:?} {policy:?}");
        }
        // A key of the main file may be used as a key elsewhere: it is shown to nobody.
        assert!(guard(default()).file("secrets/store", Purpose::Certificate, real).is_ok());
        assert!(guard(default()).file("/etc/shadow", Purpose::Certificate, real).is_err());
    }
}
