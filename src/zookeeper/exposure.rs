//! Znodes of flowkeeper's own that everybody may change although its session has credentials.
//!
//! A znode keeps the access list that it was made with. So a root from before there were credentials, or one that
//! somebody else made first, stays open, and who can write `config` says what runs. Changes nothing: whose znodes
//! they are is not known here.

use zookeeper_client::{Acl, Permission};

use super::error::ZooKeeperError;
use super::session::Session;

/// Those below the root that say what runs, who leads and what is done.
const OWN: [&str; 8] = ["config", "config/parts", "leader", "locks", "members", "store", "sync", "health"];

/// What lets its holder change something.
const CHANGING: [Permission; 4] = [Permission::WRITE, Permission::CREATE, Permission::DELETE, Permission::ADMIN];

/// The znodes of this root, it included, that everybody may change; none for a session without credentials, which
/// makes all of them open.
pub async fn exposed(session: &Session, root: &str) -> Result<Vec<String>, ZooKeeperError> {
    if !session.keeps_znodes_to_itself() {
        return Ok(Vec::new());
    }
    let below = |name: &str| format!("{}/{name}", root.trim_end_matches('/'));
    let mut exposed = Vec::new();
    for path in std::iter::once(root.to_owned()).chain(OWN.iter().map(|name| below(name))) {
        match session.get_acl(&path).await {
            Ok(Some(acl)) if is_open(&acl) => exposed.push(path),
            // Whoever may not read the list cannot be everybody.
            Ok(_) | Err(ZooKeeperError::NoPermission) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(exposed)
}

/// What can be done about it.
pub fn exposure_hint(exposed: &[String]) -> String {
    let first = exposed.first().map_or("", String::as_str);
    format!(
        "close them with the credentials of flowkeeper: `addauth` and `setAcl -R {first} auth::cdrwa` in zkCli.sh; \
         docs/zookeeper-security.md tells more"
    )
}

fn is_open(acl: &[Acl]) -> bool {
    acl.iter().any(|entry| {
        entry.scheme() == "world" && CHANGING.into_iter().any(|permission| entry.permission().has(permission))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_znode_is_open_when_everybody_may_change_it() {
        let anyone = |permission| Acl::new(permission, zookeeper_client::AuthId::anyone());
        let ours = Acl::new(Permission::ALL, zookeeper_client::AuthId::new("digest", "me:x"));
        for (case, acl, expected) in [
            ("ours alone", vec![ours.clone()], false),
            ("all may read", vec![ours.clone(), anyone(Permission::READ)], false),
            ("all may do everything", vec![anyone(Permission::ALL)], true),
            ("all may write as well", vec![ours.clone(), anyone(Permission::WRITE)], true),
            ("all may make children", vec![ours.clone(), anyone(Permission::READ | Permission::CREATE)], true),
            ("all may change the list", vec![ours, anyone(Permission::ADMIN)], true),
            ("nobody may do anything", vec![], false),
        ] {
            assert_eq!(is_open(&acl), expected, "{case}");
        }
    }
}
