//! Where definitions are, and the ways in which sets get there.

use std::path::Path;

use super::sets::Mistake;
use crate::support::random::Random;

/// Where the definitions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Files,
    Znode,
}

/// How a set gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// The file is written in place.
    Saved,
    /// Another file is renamed over it.
    Renamed,
    /// Kubernetes' way: a link is set to another directory.
    Linked,
    /// Written in place, and SIGHUP to a member.
    SavedAndSignal,
    /// Written in place, and `POST config/reload` at a member.
    SavedAndRequest,
    /// Somebody else's client sets the znode.
    Set,
    /// That, and SIGHUP to a member.
    SetAndSignal,
    /// That, and `POST config/reload` at a member.
    SetAndRequest,
    /// Pushed through a member, which leads or not.
    Pushed,
    /// The same with a set that is larger than a znode may be.
    PushedLarge,
    /// An earlier set, by its version, through a member.
    RolledBack,
}

impl Way {
    /// One of the ways to a place.
    pub(crate) fn draw(place: Place, random: &mut Random) -> Self {
        match place {
            Place::Files => {
                random.pick(&[Self::Saved, Self::Renamed, Self::Linked, Self::SavedAndSignal, Self::SavedAndRequest])
            }
            Place::Znode => match random.below(24) {
                0..=4 => Self::Set,
                5..=7 => Self::SetAndSignal,
                8..=10 => Self::SetAndRequest,
                11..=18 => Self::Pushed,
                19 => Self::PushedLarge,
                _ => Self::RolledBack,
            },
        }
    }

    /// Whether somebody waits for an answer of the member that is to read it again.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::SavedAndRequest | Self::SetAndRequest)
    }

    pub(crate) fn signals(self) -> bool {
        matches!(self, Self::SavedAndSignal | Self::SetAndSignal)
    }
}

/// What gets to a place and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bad {
    /// A set with a mistake in it.
    Mistaken(Mistake),
    /// The znode is set to something that is no set.
    Rubbish,
    /// The znode is emptied.
    Emptied,
    /// The znode is deleted.
    Deleted,
    /// A push of a good set that was made from another version than the one in force.
    PushedTooLate,
}

impl Bad {
    pub(crate) fn draw(place: Place, random: &mut Random) -> Self {
        match place {
            Place::Files => Self::Mistaken(random.pick(&Mistake::ALL)),
            Place::Znode => match random.below(12) {
                0 => Self::Rubbish,
                1 => Self::Emptied,
                2 => Self::Deleted,
                3 | 4 => Self::PushedTooLate,
                _ => Self::Mistaken(random.pick(&Mistake::ALL)),
            },
        }
    }
}

/// The file with the definitions, below a member's directory.
const FILE: &str = "schedules/all.toml";

/// Puts the definitions of a member in place for the first time.
pub(crate) fn lay(member: &Path, text: &str) {
    std::fs::create_dir(member.join("schedules")).expect("make a directory");
    std::fs::write(member.join(FILE), text).expect("write the definitions");
}

/// Writes the definitions of a member; `number` tells this from any other time.
pub(crate) fn save(member: &Path, text: &str, way: Way, number: usize) {
    let file = member.join(FILE);
    match way {
        Way::Renamed => {
            let new = member.join("new");
            std::fs::write(&new, text).expect("write the definitions");
            std::fs::rename(new, file).expect("rename");
        }
        Way::Linked => link(&member.join("schedules"), text, number),
        _ => std::fs::write(file, text).expect("write the definitions"),
    }
}

/// The file leads through the link `..data` to a directory of its own, as in a volume of Kubernetes. The
/// link is set to a new directory in one step, and the old one is deleted.
fn link(volume: &Path, text: &str, number: usize) {
    let data = volume.join("..data");
    let before = std::fs::read_link(&data).ok();
    let directory = format!("..{number}");
    std::fs::create_dir(volume.join(&directory)).expect("make a directory");
    std::fs::write(volume.join(&directory).join("all.toml"), text).expect("write the definitions");
    let place = |target: &str, link: &Path| {
        let aside = volume.join("..aside");
        std::os::unix::fs::symlink(target, &aside).expect("make a link");
        std::fs::rename(aside, link).expect("put the link in its place");
    };
    place(&directory, &data);
    let file = volume.join("all.toml");
    if !file.is_symlink() {
        place("..data/all.toml", &file);
    }
    if let Some(before) = before {
        std::fs::remove_dir_all(volume.join(before)).expect("remove the directory before");
    }
}
