//! What a token allows, decided before it is known what a request is about.
//!
//! A caller who is bound to a team may only ask for what is done to one schedule or one run: whose that
//! is, is known where it is found, in `operations`. Everything else that changes something concerns
//! all teams. A path that is not listed here is not for such a caller.

use crate::config::model::Role;

/// What a token may do, as far as a request tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// The role is not enough.
    Needs(Role),
    /// It is not for one who is bound to a team.
    ConcernsAll,
}

/// Whether a token of this role, bound to a team or not, may send a request that `changes` something.
pub(super) fn judge(role: Role, is_bound: bool, changes: bool, path: &str) -> Verdict {
    let needed = needed_role(changes, path);
    if role < needed {
        Verdict::Needs(needed)
    } else if is_bound && changes && !concerns_one_owner(path) {
        Verdict::ConcernsAll
    } else {
        Verdict::Allowed
    }
}

/// Who changes the configuration changes what everybody else may do.
fn needed_role(changes: bool, path: &str) -> Role {
    match (changes, path.strip_prefix("/api/v1/config")) {
        // The text of definitions may show how to log in.
        (false, Some(rest)) if rest == "/definitions" || rest.starts_with("/history/") => Role::Admin,
        (false, _) => Role::Read,
        (true, Some(rest)) if rest.is_empty() || rest.starts_with('/') => Role::Admin,
        (true, _) => Role::Operate,
    }
}

/// Whether what is changed has one owner.
fn concerns_one_owner(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts.as_slice(),
        ["", "api", "v1", "schedules", _, "trigger" | "pause" | "resume" | "backfill"]
            | ["", "api", "v1", "runs", _, "retry" | "cancel"]
    )
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Allowed, ConcernsAll, Needs};
    use super::*;

    #[test]
    fn what_each_token_may_do() {
        use Role::{Admin, Operate, Read};
        // Whether it changes something, and what follows for read, operate, admin, and operate that is
        // bound to a team.
        let reading = [Allowed; 4];
        let of_one_owner = [Needs(Operate), Allowed, Allowed, Allowed];
        let of_all = [Needs(Operate), Allowed, Allowed, ConcernsAll];
        let of_administrators = [Needs(Admin), Needs(Admin), Allowed, Needs(Admin)];
        let cases = [
            (false, "/api/v1/runs", reading),
            (false, "/api/v1/config", reading),
            (false, "/api/v1/config/history", reading),
            (false, "/api/v1/config/history/7", of_administrators),
            (false, "/api/v1/config/definitions", of_administrators),
            (false, "/api/v1/audit", reading),
            (false, "/metrics", reading),
            (false, "/", reading),
            (false, "/api/v1/ensembles/main/checks/quorum/run", reading),
            (true, "/api/v1/schedules/a/trigger", of_one_owner),
            (true, "/api/v1/schedules/a/pause", of_one_owner),
            (true, "/api/v1/schedules/a/resume", of_one_owner),
            (true, "/api/v1/schedules/a/backfill", of_one_owner),
            (true, "/api/v1/runs/7/retry", of_one_owner),
            (true, "/api/v1/runs/7/cancel", of_one_owner),
            (true, "/api/v1/adopt", of_all),
            (true, "/api/v1/sync/apply", of_all),
            (true, "/api/v1/schedules", of_all),
            (true, "/api/v1/schedules/a/pause/b", of_all),
            (true, "/api/v1/schedules/a/rename", of_all),
            (true, "/api/v1//schedules/a/pause", of_all),
            (true, "/api/v1/configurations", of_all),
            (true, "/api/v1/config", of_administrators),
            (true, "/api/v1/config/reload", of_administrators),
            (true, "/api/v1/config/definitions", of_administrators),
        ];
        for (changes, path, expected) in cases {
            let found = [(Read, false), (Operate, false), (Admin, false), (Operate, true)]
                .map(|(role, is_bound)| judge(role, is_bound, changes, path));
            assert_eq!(found, expected, "{path}, changing: {changes}");
        }
    }
}
