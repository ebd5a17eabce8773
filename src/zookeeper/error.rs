//! What can go wrong with a request to ZooKeeper, by what may be concluded from it.

use zookeeper_client::Error;

/// Why a request failed; fits "failed to …: …". Absent znodes are answers, not errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZooKeeperError {
    /// The access control list forbids it. Nothing changed.
    #[error("the session has no permission for it")]
    NoPermission,
    /// A znode with children is not deleted. Nothing changed.
    #[error("it has children")]
    NotEmpty,
    /// There is no znode to hold the new one. Nothing changed.
    #[error("its parent does not exist")]
    NoParent,
    /// The znode has another version than the one that was asked for. Nothing changed.
    #[error("it was changed meanwhile")]
    BadVersion,
    /// The servers take none of the session's credentials for an identity, so no znode can be made that
    /// is for it alone. Nothing changed.
    #[error("the servers do not recognise the credentials of this session")]
    NoIdentity,
    /// The servers are too old for this operation. Nothing changed.
    #[error("the servers do not know this operation")]
    Unsupported,
    /// The servers, or the client itself, refused it. Nothing changed, and the session goes on.
    #[error("it was refused: {0}")]
    Refused(String),
    /// The credentials were refused, and the session with them.
    #[error("the credentials were refused")]
    AuthenticationFailed,
    /// The answer never came: the request may have taken effect, or may still do so.
    #[error("no answer came: {0}")]
    Unknown(String),
}

impl ZooKeeperError {
    /// Whether the session is of no use any more.
    pub fn ends_session(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::AuthenticationFailed)
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoPermission => {
                "others made this znode: let its access control list name this session's credentials, or take another `root`"
            }
            Self::NoIdentity => {
                "set up on the servers what the credentials need (a JAAS file for `sasl`, `ssl.clientAuth` for certificates), or leave the credentials out"
            }
            Self::NoParent => "does the chroot at the end of `connect` exist?",
            Self::AuthenticationFailed => "compare the credentials with what the servers know",
            Self::Unsupported => "ZooKeeper 3.5 or later is needed",
            Self::NotEmpty | Self::BadVersion => "somebody else uses this znode too",
            Self::Refused(_) => "the servers' log may tell more",
            Self::Unknown(_) => "flowkeeper looks what became of it as soon as it is connected",
        }
    }
}

impl From<Error> for ZooKeeperError {
    /// Only errors that are proven harmless count as such; all others leave the outcome open. A
    /// reset connection, for one, arrives as `Custom` and not as `ConnectionLoss`.
    fn from(error: Error) -> Self {
        match error {
            Error::NoAuth => Self::NoPermission,
            Error::NotEmpty => Self::NotEmpty,
            // Where a znode may be absent, that is an answer; what is left is a creation.
            Error::NoNode => Self::NoParent,
            Error::BadVersion => Self::BadVersion,
            Error::Unimplemented => Self::Unsupported,
            Error::InvalidAcl => Self::NoIdentity,
            Error::AuthFailed => Self::AuthenticationFailed,
            Error::NodeExists
            | Error::NoChildrenForEphemerals
            | Error::NotReadOnly
            | Error::NoWatcher
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::MarshallingError
            | Error::ReconfigDisabled
            | Error::BadArguments(_)
            | Error::UnexpectedErrorCode(_)
            // An answer came, of which this client makes no sense: reading again would not help.
            | Error::UnmarshalError { .. } => Self::Refused(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proven_outcomes_are_definite() {
        for (error, definite) in [
            (Error::NoAuth, true),
            (Error::BadVersion, true),
            (Error::Throttled, true),
            (Error::Unimplemented, true),
            (Error::BadArguments(&"path"), true),
            (Error::Timeout, false),
            (Error::ConnectionLoss, false),
            (Error::SessionExpired, false),
            (Error::ClientClosed, false),
            (Error::UnexpectedError("reset".into()), false),
        ] {
            assert_eq!(!ZooKeeperError::from(error.clone()).ends_session(), definite, "{error}");
        }
    }
}
