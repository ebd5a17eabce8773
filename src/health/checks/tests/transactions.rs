//! How far servers are behind each other.

use super::*;

#[test]
fn a_follower_lags_by_what_it_lacks_of_the_earlier_sample() {
    let healthy = World::healthy;
    judged(
        Check::ZxidLag,
        Some("b"),
        [
            ("it has all", healthy(), Fine, Some(0.0)),
            ("it has more", healthy().zxid(1, EPOCH + 90), Fine, Some(0.0)),
            ("it lacks one", healthy().zxid(1, EPOCH + 54), Warning, Some(1.0)),
            ("it is in the epoch before", healthy().zxid(1, 7), Warning, Some(55.0)),
            ("it is in the epoch after", healthy().zxid(1, 2 * EPOCH), Fine, Some(0.0)),
            ("one sample", healthy().once(), Unknown, None),
            (
                "it tells none",
                healthy().with(1, |server| server.summary.as_mut().unwrap().zxid = None),
                NotApplicable,
                None,
            ),
        ],
    );
    judged(Check::ZxidLag, Some("a"), [("it leads", healthy(), NotApplicable, None)]);
}

#[test]
fn epochs_are_compared_after_a_write() {
    let healthy = World::healthy;
    let behind = || healthy().zxid(1, 7);
    let failed = |canary: &mut CanaryFacts| {
        canary.trips[1].end = Some(TripEnd::Failed(Step::Connect, "no answer came".into()));
    };
    let mut nobody = healthy();
    nobody.canary = None;
    judged(
        Check::Epoch,
        None,
        [
            ("alike", healthy(), Fine, None),
            ("one is behind", behind(), Critical, None),
            ("one is behind, and saw no write", behind().canary(failed), Unknown, None),
            ("one is behind, in one sample before the write", behind().once(), Unknown, None),
            ("alike without a canary", nobody, Fine, None),
            ("read-only servers are another matter", behind().mode(1, &Mode::ReadOnly), Fine, None),
        ],
    );
}
