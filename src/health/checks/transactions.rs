//! Whether all servers have the same transactions.

use super::{Evidence, ONE_SAMPLE, Seen, in_mode, listed};
use crate::domain::health::{Check, Finding, Verdict};
use crate::health::facts::{Mode, TripEnd, epoch_and_counter};

/// A server that keeps up has by now what the leader had one sample ago.
pub(super) fn zxid_lag(seen: Seen<'_>) -> Finding {
    let server = match (&seen.server.summary, seen.server.mode()) {
        (Err(why), _) => return seen.unknown(super::unknown_because(why)),
        (_, Some(Mode::Leader)) => return seen.not_applicable("The server leads: the others follow it."),
        (_, Some(Mode::Standalone)) => return seen.not_applicable("The server stands alone."),
        _ => seen.server.zxid(),
    };
    let Some(zxid) = server else { return seen.not_applicable("The server does not tell its zxid.") };
    let Some(before) = seen.evidence.before else { return seen.unknown(ONE_SAMPLE) };
    let Some(leader) = in_mode(before, &Mode::Leader).next() else {
        return seen.unknown("No server led in the earlier sample: see `leader`.");
    };
    let Some(target) = leader.zxid() else { return seen.unknown("The leader does not tell its zxid.") };
    let ((epoch, counter), (target_epoch, target_counter)) = (epoch_and_counter(zxid), epoch_and_counter(target));
    // Across epochs the numbers of transactions cannot be subtracted; those of the later one count.
    let behind = match epoch.cmp(&target_epoch) {
        std::cmp::Ordering::Equal => (target_counter - counter).max(0),
        std::cmp::Ordering::Less => target_counter,
        std::cmp::Ordering::Greater => 0,
    };
    let meaning = if behind == 0 {
        format!("The server has all transactions that the leader had {} earlier.", seen.span())
    } else {
        format!("The server lacks {behind} transactions that the leader had {} earlier.", seen.span())
    };
    #[expect(clippy::cast_precision_loss, reason = "the counter has 32 bits")]
    seen.by_limits(behind as f64, meaning)
}

/// Servers show the epoch of the last transaction that they applied, so this counts after a write.
pub(super) fn epoch(evidence: &Evidence<'_>) -> Finding {
    let check = Check::Epoch;
    let mut shown: Vec<(i64, &str)> = evidence
        .now
        .servers
        .iter()
        .filter(|server| server.mode() != Some(&Mode::ReadOnly))
        .filter_map(|server| Some((epoch_and_counter(server.zxid()?).0, &*server.server)))
        .collect();
    shown.sort_unstable();
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        return Finding::unknown(check, None, "No server told its zxid: see `serving`.");
    };
    if first.0 == last.0 {
        return Finding::told(check, None, Verdict::Ok, format!("All servers that answer are in epoch {}.", last.0));
    }
    let behind: Vec<&str> = shown.iter().filter(|(epoch, _)| *epoch != last.0).map(|(_, server)| *server).collect();
    // Whoever served the canary, or synced for it, has applied a write of the newest epoch.
    let wrote = |server: &str| {
        evidence.canary.is_some_and(|canary| {
            canary.trips.iter().any(|trip| {
                &*trip.server == server && trip.end.as_ref().is_none_or(|end| matches!(end, TripEnd::NotAllowed(_)))
            })
        })
    };
    let names = listed(&behind);
    if evidence.before.is_some() && behind.iter().all(|server| wrote(server)) {
        let meaning = format!("After a write {names} still shows an older epoch than {}.", last.0);
        return Finding::told(check, None, Verdict::Critical, meaning);
    }
    let meaning = format!("{names} shows an older epoch than {}, which is normal until the next write.", last.0);
    Finding::unknown(check, None, meaning)
}
