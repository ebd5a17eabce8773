//! From checked configuration to connections: resolves secrets and hands plain values to the clients.
//!
//! Secrets are read here and nowhere earlier, so that checking a configuration needs none. Those in
//! files are read again at each login, so that rotating them needs no restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::airflow::{self, Airflow};
use crate::clock::Clock;
use crate::config::model::{self, AirflowAuth, HeaderText};
use crate::config::secret::SecretError;
use crate::config::{Environment, SecretRef};
use crate::health;
use crate::secret::{Credential, Secret};
use crate::zookeeper::{self, Ensemble, Session, SessionStatus};

/// How long a program that prints a token may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection cannot be set up; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A secret is not where the configuration says.
    #[error("read the secret for `{key}`: {reason}")]
    Secret {
        /// The key that names it.
        key: String,
        /// What is wrong with it.
        reason: String,
        /// Whether it stays wrong for as long as the process lives: variables are those of its start.
        lasts: bool,
    },
    /// The client refuses its settings.
    #[error("set up the client of airflow `{name}`: {reason}")]
    Airflow {
        /// Which Airflow.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl ConnectError {
    /// What is wrong with the secret that `key` names.
    pub(super) fn secret(key: &str, place: &SecretRef, error: &SecretError) -> Self {
        let lasts = matches!(place, SecretRef::Env(_));
        Self::Secret { key: key.to_owned(), reason: error.to_string(), lasts }
    }
}

/// A client for an Airflow of the configuration. Makes no request.
pub fn airflow(settings: &model::Airflow, environment: &Environment, clock: Clock) -> Result<Airflow, ConnectError> {
    let refused = |reason: String| ConnectError::Airflow { name: settings.name.to_string(), reason };
    let url = |text: &str| Url::parse(text).map_err(|error| refused(format!("one of its URLs is none: {error}")));
    let key = |part: &str| format!("airflow.{}.{part}", settings.name);
    let auth = match &settings.auth {
        AirflowAuth::None => airflow::Auth::None,
        AirflowAuth::Password { username, password } => airflow::Auth::Password {
            username: username.clone(),
            password: credential(password, environment, &key("auth.password"))?,
        },
        AirflowAuth::Token(token) => airflow::Auth::Token(credential(token, environment, &key("auth.token"))?),
        AirflowAuth::Command { command, ttl } => {
            airflow::Auth::Command { argv: command.clone(), ttl: *ttl, timeout: COMMAND_TIMEOUT }
        }
        AirflowAuth::OAuth2 { token_url, client_id, client_secret, scope, audience } => airflow::Auth::OAuth2 {
            token_url: url(token_url)?,
            client_id: client_id.clone(),
            client_secret: credential(client_secret, environment, &key("auth.oauth2.client_secret"))?,
            scope: scope.clone(),
            audience: audience.clone(),
        },
    };
    let headers = settings
        .headers
        .iter()
        .map(|(name, text)| {
            let text = match text {
                HeaderText::Plain(text) => Credential::Fixed(Secret::new(text.as_str())),
                HeaderText::Secret(secret) => credential(secret, environment, &key(&format!("headers.{name}")))?,
            };
            Ok((name.clone(), text))
        })
        .collect::<Result<_, ConnectError>>()?;
    let settings = airflow::Settings {
        name: Arc::clone(&settings.name),
        url: url(&settings.url)?,
        auth,
        headers,
        ca: settings.ca.clone(),
        timeout: settings.timeout,
    };
    Airflow::new(settings, clock).map_err(|error| refused(error.to_string()))
}

/// A secret as the Airflow client takes it; it must be readable now.
fn credential(secret: &SecretRef, environment: &Environment, key: &str) -> Result<Credential, ConnectError> {
    let now = resolve(secret, environment, key)?;
    Ok(match secret {
        SecretRef::Env(_) => Credential::Fixed(now),
        SecretRef::File(path) => Credential::File(path.clone()),
    })
}

fn resolve(secret: &SecretRef, environment: &Environment, key: &str) -> Result<Secret, ConnectError> {
    secret
        .resolve(environment)
        .map(|secret| Secret::new(secret.expose()))
        .map_err(|error| ConnectError::secret(key, secret, &error))
}

/// The settings of an ensemble, read anew for each connection. `key` names it in errors.
pub fn zookeeper(
    connection: model::Connection,
    environment: Arc<Environment>,
    key: String,
) -> Result<zookeeper::SettingsSource, ConnectError> {
    // Once now, so that what is missing at the start is an error at the start.
    settings(&connection, &environment, &key)?;
    Ok(Arc::new(move || settings(&connection, &environment, &key).map_err(|error| error.to_string())))
}

/// What is checked of an ensemble. Asks nobody.
pub fn health(
    config: &model::Config,
    ensemble: &model::Ensemble,
    environment: Arc<Environment>,
) -> Result<Option<health::Target>, ConnectError> {
    let (connection, key) = match (&ensemble.connection, &config.zookeeper) {
        (Some(connection), _) => (connection, format!("ensemble.{}", ensemble.name)),
        (None, Some(home)) => (&home.connection, "zookeeper".to_owned()),
        (None, None) => return Ok(None),
    };
    let settings = zookeeper(connection.clone(), environment, key)?;
    let mut target = health::Target::new(Arc::clone(&ensemble.name), settings, ensemble.thresholds.clone());
    target.admin.clone_from(&ensemble.admin);
    target.canary.clone_from(&ensemble.canary);
    Ok(Some(target))
}

/// An ensemble whose health the leader checks.
#[derive(Clone)]
pub struct Watched {
    /// What is checked.
    pub target: Arc<health::Target>,
    /// How often.
    pub interval: Duration,
    /// A text that changes with anything that this depends on. Holds no secret.
    pub identity: String,
}

/// The ensembles of the configuration whose health the leader checks. Asks nobody.
pub fn watched(config: &model::Config, environment: &Arc<Environment>) -> Result<Vec<Watched>, ConnectError> {
    let mut watched = Vec::new();
    for ensemble in config.ensembles_to_check() {
        let Some(target) = health(config, &ensemble, Arc::clone(environment))? else { continue };
        let connection = ensemble.connection.as_ref().or(config.zookeeper.as_ref().map(|home| &home.connection));
        let identity = format!("{ensemble:?} {connection:?}");
        watched.push(Watched { target: Arc::new(target), interval: ensemble.interval, identity });
    }
    Ok(watched)
}

fn settings(
    connection: &model::Connection,
    environment: &Environment,
    key: &str,
) -> Result<zookeeper::Settings, ConnectError> {
    let read = |path: &Path, part: &str| {
        std::fs::read_to_string(path).map_err(|error| ConnectError::Secret {
            key: format!("{key}.{part}"),
            reason: format!("the file {} cannot be read: {error}", path.display()),
            lasts: false,
        })
    };
    let auth = match &connection.auth {
        Some(auth) => {
            let credential = resolve(&auth.credential, environment, &format!("{key}.auth.credential"))?;
            Some((auth.scheme.clone(), credential.expose().to_owned()))
        }
        None => None,
    };
    let tls = match &connection.tls {
        Some(tls) => {
            let identity = match &tls.identity {
                Some(identity) => Some((read(&identity.cert, "tls.cert")?, read(&identity.key, "tls.key")?)),
                None => None,
            };
            Some(zookeeper::Tls { ca: read(&tls.ca, "tls.ca")?, identity })
        }
        None => None,
    };
    let sasl = match &connection.sasl {
        Some(sasl) => {
            let password = resolve(&sasl.password, environment, &format!("{key}.sasl.password"))?;
            Some(zookeeper::Sasl { username: sasl.username.clone(), password: password.expose().to_owned() })
        }
        None => None,
    };
    Ok(zookeeper::Settings {
        connect: connection.connect.clone(),
        session_timeout: connection.session_timeout,
        auth,
        tls,
        sasl,
    })
}

/// A session with an ensemble for a question or two. It is closed when this is dropped.
pub struct Visit {
    /// The way to ask.
    pub session: Session,
    _over: DropGuard,
}

/// Opens a session with an ensemble of the configuration, or tells within `patience` why there is none.
pub async fn visit(
    name: Option<Arc<str>>,
    settings: zookeeper::SettingsSource,
    clock: Clock,
    patience: Duration,
) -> Result<Visit, String> {
    let over = CancellationToken::new();
    let ensemble = Ensemble::start(name, settings, clock, over.clone());
    let over = over.drop_guard();
    let mut status = ensemble.status();
    let settled =
        status.wait_for(|status| matches!(status, SessionStatus::Connected { .. } | SessionStatus::Refused { .. }));
    // Without an answer in time, what the latest attempt said is the reason.
    drop(tokio::time::timeout(patience, settled).await);
    let latest = status.borrow().clone();
    match (ensemble.session(), latest) {
        (Some(session), _) => Ok(Visit { session, _over: over }),
        (None, SessionStatus::Refused { reason } | SessionStatus::Disconnected { reason, .. }) => Err(reason),
        (None, _) => Err(format!("no session within {} s", patience.as_secs())),
    }
}
