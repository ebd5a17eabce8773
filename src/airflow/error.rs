//! Why Airflow could not be asked.

use super::auth::AuthError;

/// A request to Airflow that brought no usable answer; fits "failed to …".
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("reach Airflow {airflow}: {detail}")]
    Settings {
        /// Name in the configuration.
        airflow: String,
        /// What is wrong.
        detail: String,
    },
    /// There was no answer.
    #[error("{tried} of Airflow {airflow} at {url}: {detail}")]
    NoAnswer {
        /// Name in the configuration.
        airflow: String,
        /// Its address.
        url: String,
        /// What was tried.
        tried: String,
        /// What happened.
        detail: String,
        /// The request certainly did not reach Airflow.
        not_sent: bool,
    },
    /// The login did not work.
    #[error("log in to Airflow {airflow}: {source}")]
    Login {
        /// Name in the configuration.
        airflow: String,
        /// Why.
        source: AuthError,
    },
    /// The login worked, or none was needed, and Airflow still refuses.
    #[error("{tried} of Airflow {airflow}: {detail}")]
    Unauthorized {
        /// Name in the configuration.
        airflow: String,
        /// What was tried.
        tried: String,
        /// What Airflow said.
        detail: String,
    },
    /// It does not exist.
    #[error("{tried} of Airflow {airflow}: {detail}")]
    Absent {
        /// Name in the configuration.
        airflow: String,
        /// What was tried.
        tried: String,
        /// What Airflow said.
        detail: String,
    },
    /// Airflow refused or failed.
    #[error("{tried} of Airflow {airflow}: {detail}")]
    Refused {
        /// Name in the configuration.
        airflow: String,
        /// What was tried.
        tried: String,
        /// What Airflow said.
        detail: String,
    },
    /// Neither API v2 nor API v1 answers at the address.
    #[error("find Airflow's API of {airflow} at {url}: {detail}")]
    NoApi {
        /// Name in the configuration.
        airflow: String,
        /// Its address.
        url: String,
        /// What answered instead.
        detail: String,
    },
}

impl Error {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Settings { .. } => "correct this Airflow's section in the configuration",
            Self::NoAnswer { .. } => {
                "is Airflow's API server running, and can this host reach it? flowkeeper goes on trying"
            }
            Self::Login { source, .. } => source.hint(),
            Self::Unauthorized { detail, .. } if detail.contains("redirected") => {
                "check the scheme and the path of `url`, and whether something before Airflow asks for a login of its own"
            }
            Self::Unauthorized { .. } => "check `auth` of this Airflow, and what its user may do",
            Self::Absent { .. } => "check the id; a new DAG file is parsed within a minute or so",
            Self::Refused { .. } => "Airflow's API server log says more",
            Self::NoApi { .. } => {
                "`url` is the address of Airflow's pages, without /api; Airflow 2.7 and later are supported"
            }
        }
    }

    /// Whether Airflow said, in its own words, that the thing asked for does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Whether Airflow answered at all.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Self::NoAnswer { .. })
    }
}
