//! Whether an ensemble would do, for a person who asks before it matters. Changes nothing.

use super::connect::{Life, connect};
use super::error::ZooKeeperError;
use super::exposure::{exposed, exposure_hint};
use super::one_shot::Attendance;
use super::session::Session;
use super::settings::SettingsSource;

/// What stands in the way, or may go wrong, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFault {
    /// Of what stands in the way, fits "failed to …".
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Opens a session and looks whether its credentials are recognised and, if there is a `root`, whether
/// flowkeeper may use it, and is alone with it. Takes no longer than opening a session does, and a few requests.
/// What it gives back where nothing stands in the way is a warning.
pub async fn check(settings: &SettingsSource, root: Option<&str>) -> Result<Option<CheckFault>, CheckFault> {
    let opened = connect(settings, Life::Connection, true).await.map_err(|failure| CheckFault {
        message: format!("open a session: {failure}"),
        hint: failure.hint().to_owned(),
    })?;
    let demands_identity = opened.demands_identity();
    let session = opened.into_session(1, Attendance::default());
    let outcome = look(&session, demands_identity, root).await;
    session.close();
    outcome
}

async fn look(session: &Session, demands_identity: bool, root: Option<&str>) -> Result<Option<CheckFault>, CheckFault> {
    let failed = |action: String| {
        move |error: ZooKeeperError| CheckFault { message: format!("{action}: {error}"), hint: error.hint().to_owned() }
    };
    if demands_identity {
        match session.is_recognised().await {
            Ok(true) | Err(ZooKeeperError::Unsupported) => {}
            Ok(false) => return Err(failed("use the credentials".to_owned())(ZooKeeperError::NoIdentity)),
            Err(error) => return Err(failed("ask who this session is".to_owned())(error)),
        }
    }
    let chroot = session.stat("/").await.map_err(failed("look at the znode /".to_owned()))?;
    if chroot.is_none() {
        return Err(failed("find the chroot".to_owned())(ZooKeeperError::NoParent));
    }
    let Some(root) = root else { return Ok(None) };
    session.get_children(root).await.map_err(failed(format!("list the znode {root}")))?;
    let open = exposed(session, root).await.map_err(failed(format!("ask who may change the znode {root}")))?;
    Ok((!open.is_empty()).then(|| CheckFault {
        message: format!("everybody who reaches it may change {}", open.join(", ")),
        hint: exposure_hint(&open),
    }))
}
