//! Whether the servers are an ensemble: one leader, enough voters, followers that keep up.

use super::{Evidence, Reading, count, in_mode, metric_of};
use crate::domain::health::{Check, Finding, Verdict};
use crate::health::facts::{Member, Mode, Sample};

/// A server that is an ensemble by itself has no leader, no quorum and no followers.
pub(super) fn stands_alone(sample: &Sample) -> bool {
    sample.servers.len() == 1 && sample.servers[0].mode() == Some(&Mode::Standalone)
}

const ALONE: &str = "The server stands alone.";

/// How many voters there are: as members say, else as many as are named and are not observers.
pub(super) fn voters(evidence: &Evidence<'_>) -> usize {
    let told = evidence.now.servers.iter().filter_map(|server| server.settings.as_ref().ok());
    let mut lists = told.map(|settings| &settings.members).chain(evidence.canary.map(|canary| &canary.members));
    match lists.find(|members| !members.is_empty()) {
        Some(members) => members.values().filter(|member: &&Member| member.votes).count(),
        None => evidence.now.servers.len() - in_mode(evidence.now, &Mode::Observer).count(),
    }
}

/// How many servers lead or follow.
pub(super) fn working(sample: &Sample) -> usize {
    in_mode(sample, &Mode::Leader).count() + in_mode(sample, &Mode::Follower).count()
}

/// How many servers the leader counts as its own, itself among them; 0 where nobody tells.
pub(super) fn leaders_own_count(sample: &Sample) -> usize {
    let leader = in_mode(sample, &Mode::Leader).next();
    match leader.map(|leader| metric_of(leader, "synced_followers")) {
        Some(Reading::Value(synced)) => {
            (0..=sample.servers.len()).take_while(|number| count(*number) <= synced).count()
        }
        _ => 0,
    }
}

pub(super) fn leader(evidence: &Evidence<'_>) -> Finding {
    let check = Check::Leader;
    if stands_alone(evidence.now) {
        return Finding::told(check, None, Verdict::NotApplicable, ALONE);
    }
    let leaders: Vec<&str> = in_mode(evidence.now, &Mode::Leader).map(|server| &*server.server).collect();
    let before = evidence.before.map(|before| in_mode(before, &Mode::Leader).count());
    let (verdict, meaning) = match (leaders.as_slice(), before) {
        ([leader], _) => (Verdict::Ok, format!("{leader} leads.")),
        // Followers follow somebody; all of it need not be named in the configuration.
        ([], _) if voters(evidence) > evidence.now.servers.len() && working(evidence.now) > 0 => {
            (Verdict::Unknown, "The leader is none of the servers that are named: see `membership`.".to_owned())
        }
        ([], _) => (Verdict::Critical, "No server leads: nothing can be written.".to_owned()),
        (several, Some(0 | 1)) => (
            Verdict::Warning,
            format!("{} both say that they lead: one of them has just been replaced.", super::listed(several)),
        ),
        (several, _) => (
            Verdict::Critical,
            format!("{} say that they lead: the ensemble is split, or these are several.", super::listed(several)),
        ),
    };
    Finding::told(check, None, verdict, meaning).counting(count(leaders.len()))
}

pub(super) fn quorum(evidence: &Evidence<'_>) -> Finding {
    let check = Check::Quorum;
    if stands_alone(evidence.now) {
        return Finding::told(check, None, Verdict::NotApplicable, ALONE);
    }
    let (voters, working) = (voters(evidence), working(evidence.now));
    let majority = voters / 2 + 1;
    let unnamed = voters.saturating_sub(evidence.now.servers.len());
    let (verdict, meaning) = if working >= voters {
        let spare = working.saturating_sub(majority);
        (Verdict::Ok, format!("All {voters} voting servers work; {spare} may fail."))
    } else if working + unnamed < majority {
        (Verdict::Critical, format!("{working} of {voters} voting servers work, and {majority} are needed."))
    } else if unnamed > 0 {
        let meaning = format!(
            "{working} of {voters} voting servers are seen to work; {unnamed} of them are not named: see `membership`."
        );
        (Verdict::Unknown, meaning)
    } else if working == majority {
        (Verdict::Critical, format!("{working} of {voters} voting servers work; when one more fails, all stop."))
    } else {
        let spare = working - majority;
        (Verdict::Warning, format!("{working} of {voters} voting servers work; {spare} more may fail."))
    };
    Finding::told(check, None, verdict, meaning).counting(count(working))
}

pub(super) fn synced_followers(evidence: &Evidence<'_>) -> Finding {
    let check = Check::SyncedFollowers;
    if stands_alone(evidence.now) {
        return Finding::told(check, None, Verdict::NotApplicable, ALONE);
    }
    let Some(leader) = in_mode(evidence.now, &Mode::Leader).next() else {
        return Finding::unknown(check, None, "No server that answers leads: see `leader`.");
    };
    let synced = match metric_of(leader, "synced_followers") {
        Reading::Value(synced) => synced,
        Reading::Unknown(why) => return Finding::unknown(check, None, why),
        Reading::NotApplicable(why) => return Finding::told(check, None, Verdict::NotApplicable, why),
    };
    // Servers before 3.6 do not tell the size.
    let voters = match metric_of(leader, "quorum_size") {
        Reading::Value(size) => size,
        Reading::Unknown(_) | Reading::NotApplicable(_) => count(voters(evidence)),
    };
    let expected = voters - 1.0;
    let verdict = if synced >= expected {
        Verdict::Ok
    } else if 2.0 * (synced + 1.0) <= voters {
        Verdict::Critical
    } else {
        Verdict::Warning
    };
    let meaning = format!("{synced} of {expected} followers keep up with the leader.");
    Finding::told(check, None, verdict, meaning).counting(synced)
}
