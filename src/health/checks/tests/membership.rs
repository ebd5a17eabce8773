//! Who is named, and who is a member.

use super::*;

#[test]
fn those_that_are_named_are_the_members() {
    let healthy = World::healthy;
    let mut left_out = healthy();
    left_out.now.servers.remove(2);
    let stranger = healthy().with(2, |server| server.settings.as_mut().unwrap().id = Some(9));
    let disagreeing = healthy().with(1, |server| server.settings.as_mut().unwrap().members = members(1..=2));
    let mut by_canary = healthy();
    for server in &mut by_canary.now.servers {
        server.settings = Err(Why::Refused("conf"));
    }
    let mut nobody = by_canary.clone();
    nobody.canary = None;
    let fewer = by_canary.clone().canary(|canary| canary.members = members(1..=2));
    let more = by_canary.clone().canary(|canary| canary.members = members(1..=4));
    let gone = || Why::Unreachable("refused".into());
    judged(
        Check::Membership,
        None,
        [
            ("all", healthy(), Fine, Some(3.0)),
            ("one is not named", left_out, Warning, Some(3.0)),
            ("one is no member", stranger, Warning, Some(3.0)),
            ("servers disagree", disagreeing, Warning, Some(3.0)),
            ("one does not answer", healthy().down(2, gone()), Fine, Some(3.0)),
            ("the canary tells", by_canary, Fine, Some(3.0)),
            ("the canary tells of fewer", fewer, Warning, Some(2.0)),
            ("the canary tells of more", more, Warning, Some(4.0)),
            ("nobody tells", nobody, Unknown, None),
            ("alone", World::alone(), NotApplicable, None),
        ],
    );
    let newer = healthy().with(1, |server| server.summary.as_mut().unwrap().version = "3.9.3".into());
    judged(
        Check::VersionSkew,
        None,
        [
            ("alike", healthy(), Fine, Some(1.0)),
            ("half an upgrade", newer, Warning, Some(2.0)),
            ("nobody answers", World::alone().down(0, gone()), Unknown, None),
        ],
    );
}
