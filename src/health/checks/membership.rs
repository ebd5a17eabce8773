//! Whether the servers that are named are the ensemble, and alike.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, count, in_mode, listed};
use crate::domain::health::{Check, Finding, Verdict};
use crate::health::facts::{Member, Mode, Why};

/// Members are known by their numbers: names differ from host to host, numbers do not.
pub(super) fn membership(evidence: &Evidence<'_>) -> Finding {
    let check = Check::Membership;
    let servers = &evidence.now.servers;
    if servers.len() == 1 && servers[0].mode() == Some(&Mode::Standalone) {
        return Finding::told(check, None, Verdict::NotApplicable, "The server stands alone.");
    }
    let told: Vec<_> = servers
        .iter()
        .filter_map(|server| Some((server, server.settings.as_ref().ok()?)))
        .filter(|(_, settings)| !settings.members.is_empty())
        .collect();
    let from_canary = evidence.canary.map(|canary| &canary.members).filter(|members| !members.is_empty());
    let Some(members) = told.first().map(|(_, settings)| &settings.members).or(from_canary) else {
        let refused = servers.iter().filter_map(|server| server.settings.as_ref().err());
        let why = refused.max_by_key(|why| matches!(why, Why::Refused(_)));
        return Finding::unknown(
            check,
            None,
            why.map_or_else(|| "No server tells.".to_owned(), super::unknown_because),
        );
    };
    let found = |verdict, meaning: String| Finding::told(check, None, verdict, meaning).counting(count(members.len()));
    if let Some((other, _)) = told.iter().find(|(_, settings)| !same_members(&settings.members, members)) {
        let meaning = format!("{} and {} disagree on who the members are.", told[0].0.server, other.server);
        return found(Verdict::Warning, meaning);
    }
    let ids: BTreeSet<u64> =
        servers.iter().filter_map(|server| server.settings.as_ref().ok()).filter_map(|settings| settings.id).collect();
    // Those that do not tell their number may be any of the members that are left.
    let nameless = servers.len() - ids.len();
    let missing: Vec<String> = members
        .iter()
        .filter(|(id, _)| !ids.contains(id))
        .map(|(id, member)| format!("server {id} ({})", member.address))
        .collect();
    if missing.len() > nameless {
        let meaning = match nameless {
            0 => format!("{} belongs to the ensemble, and `connect` does not name it.", listed(&missing)),
            _ => format!(
                "The ensemble has {} members, and `connect` names {}: one of {} is left out.",
                members.len(),
                servers.len(),
                listed(&missing)
            ),
        };
        return found(Verdict::Warning, meaning);
    }
    let strangers: Vec<&str> = servers
        .iter()
        // The AdminServer's list has no observers.
        .filter(|server| server.mode() != Some(&Mode::Observer))
        .filter(|server| {
            server.settings.as_ref().ok().and_then(|settings| settings.id).is_some_and(|id| !members.contains_key(&id))
        })
        .map(|server| &*server.server)
        .collect();
    let observers = in_mode(evidence.now, &Mode::Observer).count();
    if !strangers.is_empty() {
        return found(Verdict::Warning, format!("{} is no member of the ensemble.", listed(&strangers)));
    }
    if servers.len() > members.len() + observers {
        let meaning = format!("`connect` names {} servers, and the ensemble has {}.", servers.len(), members.len());
        return found(Verdict::Warning, meaning);
    }
    found(Verdict::Ok, format!("`connect` names the {} members of the ensemble.", members.len()))
}

/// Whether two lists have the same voters: lists of AdminServers lack observers.
fn same_members(one: &BTreeMap<u64, Member>, other: &BTreeMap<u64, Member>) -> bool {
    let voters = |members: &BTreeMap<u64, Member>| -> Vec<u64> {
        members.iter().filter(|(_, member)| member.votes).map(|(id, _)| *id).collect()
    };
    voters(one) == voters(other)
}

pub(super) fn version_skew(evidence: &Evidence<'_>) -> Finding {
    let check = Check::VersionSkew;
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for server in &evidence.now.servers {
        if let Ok(summary) = &server.summary {
            by_version.entry(&summary.version).or_default().push(&server.server);
        }
    }
    let shown: Vec<String> =
        by_version.iter().map(|(version, servers)| format!("{version} on {}", listed(servers))).collect();
    let (verdict, meaning) = match by_version.len() {
        0 => return Finding::unknown(check, None, "No server told its version: see `serving`."),
        1 => (Verdict::Ok, format!("All servers that answer run {}.", by_version.keys().next().unwrap_or(&""))),
        _ => (Verdict::Warning, format!("The servers run different versions: {}.", listed(&shown))),
    };
    Finding::told(check, None, verdict, meaning).counting(count(by_version.len()))
}
