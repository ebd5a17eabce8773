//! Follows the files, so that one who takes sets hears of new ones, and of what was asked for: looks
//! whenever they have changed, or somebody asks, and proposes what it finds.
//!
//! The metadata of all files are read a few times a second, and the files themselves when nothing has
//! moved for a moment: editors and tools write in several steps. [`footprint`](super::footprint) says how
//! long that moment is. Who asks by hand is answered at once.
//!
//! A file that has become empty, and a glob that finds nothing any more, are taken for what could not be
//! written yet: a set without them is refused, unless somebody has asked for the look by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::footprint::{Directories, Footprint, Lost};
use super::reloads::{Look, Proposal};
use super::{Candidate, Refusal, Set, files};
use crate::clock::Clock;
use crate::config::{self, Config, Environment, Fault, Faults, Places};

/// Between two looks at the metadata.
const INTERVAL: Duration = Duration::from_millis(200);

/// The same while files are being written.
const INTERVAL_IN_UNREST: Duration = Duration::from_millis(50);

/// Files that never come to rest are read all the same after so long.
const LONGEST_UNREST: Duration = Duration::from_secs(3);

/// How often in a row the files are read where they include others than before, or move meanwhile.
const READS: u32 = 2;

/// What to do about what is lost.
const UNLESS_MEANT: &str =
    "was it written completely? If it is meant, `kill -HUP` or `POST /api/v1/config/reload` takes it as it is";

/// How the files were when they were read.
#[derive(Debug, Clone)]
struct Seen {
    footprint: Footprint,
    directories: Directories,
}

impl Seen {
    fn of(places: &Places) -> Self {
        Self { footprint: Footprint::of(places), directories: Directories::of(places) }
    }
}

/// What is followed.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The main file.
    pub path: PathBuf,
    /// The variables that override values.
    pub environment: Arc<Environment>,
    /// The time, for what is found.
    pub clock: Clock,
}

/// Follows the files until nobody takes proposals any more. What is there at the beginning is proposed as
/// well: it may have changed since the process read it.
pub async fn follow(parts: Parts, mut looks: mpsc::Receiver<Look>, proposals: mpsc::Sender<Proposal>) {
    let mut places = Places { files: vec![parts.path.clone()], globs: Vec::new() };
    let mut replies = Vec::new();
    // How the files were when a set was proposed last, and whether somebody has asked for this look.
    let (mut taken, mut asked) = (None, true);
    loop {
        let Some((candidate, seen)) = read(&parts, &mut places).await else { return };
        let candidate = match (candidate, &taken) {
            (Ok(set), Some(before)) if !asked => whole(set, &seen.footprint.lost_since(before)),
            (candidate, _) => candidate,
        };
        if candidate.is_ok() {
            taken = Some(seen.footprint.clone());
        }
        if proposals.send(Proposal { candidate: Some(candidate), replies: std::mem::take(&mut replies) }).await.is_err()
        {
            return;
        }
        tokio::select! {
            look = looks.recv() => match look {
                Some(look) => {
                    asked = true;
                    replies.extend(look.reply);
                }
                None => return,
            },
            () = changed(&places, &seen) => asked = false,
        }
    }
}

/// The set, if nothing of it is lost.
fn whole(set: Set, lost: &[Lost]) -> Candidate {
    let file = set.config.file.clone();
    let fault = |lost: &Lost| match lost {
        Lost::Text(path) => {
            Fault::without_place(path.display().to_string(), "", "the file is empty, and was not before", UNLESS_MEANT)
        }
        Lost::Matches(glob) => {
            let message = format!("no file matches \"{glob}\" any more");
            Fault::without_place(file.display().to_string(), "include", message, UNLESS_MEANT)
        }
    };
    let faults: Vec<Fault> = lost.iter().map(fault).collect();
    if faults.is_empty() {
        return Ok(set);
    }
    Err(Box::new(Refusal { provenance: set.provenance, faults: Faults { file, faults } }))
}

/// Follows the main file alone, where the definitions are elsewhere: what it says, at the beginning and
/// whenever it has changed.
pub async fn follow_main(parts: Parts, found: mpsc::Sender<Result<Config, Faults>>) {
    let places = Places { files: vec![parts.path.clone()], globs: Vec::new() };
    loop {
        let (parts, before) = (parts.clone(), places.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let seen = Seen::of(&before);
            (config::check(&parts.path, &parts.environment).map(|(config, _)| config), seen)
        });
        // It fails only when the process ends.
        let Ok((main, seen)) = reading.await else { return };
        if found.send(main).await.is_err() {
            return;
        }
        changed(&places, &seen).await;
    }
}

/// Reads the files, and what the file system told of them before: what changes meanwhile shows the next
/// time. `None` when the process ends.
async fn read(parts: &Parts, places: &mut Places) -> Option<(Candidate, Seen)> {
    for _ in 0..READS {
        let (parts, before) = (parts.clone(), places.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let seen = Seen::of(&before);
            let (candidate, found) = files::look(&parts.path, &parts.environment, parts.clock.now());
            let stood_still = Footprint::of(&before) == seen.footprint;
            (candidate, seen, found, stood_still)
        });
        let (candidate, seen, found, stood_still) = reading.await.ok()?;
        if found == *places && stood_still {
            return Some((candidate, seen));
        }
        *places = found;
    }
    let (parts, before) = (parts.clone(), places.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let seen = Seen::of(&before);
        (files::read(&parts.path, &parts.environment, parts.clock.now()), seen)
    });
    reading.await.ok()
}

/// Waits until the files are others than `seen`, and have come to rest. Cancel-safe.
async fn changed(places: &Places, seen: &Seen) {
    let mut before = seen.footprint.clone();
    // Since when they move, and since when they are as they are.
    let mut unrest: Option<(Instant, Instant)> = None;
    loop {
        tokio::time::sleep(if unrest.is_none() { INTERVAL } else { INTERVAL_IN_UNREST }).await;
        let (places, seen) = (places.clone(), seen.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let now = Footprint::of(&places);
            let swapped =
                now.lacks_one_of(&seen.footprint) && Directories::of(&places).were_swapped_since(&seen.directories);
            let rest = now.rest_since(&seen.footprint, swapped);
            (now, rest)
        });
        // It fails only when the process ends, which ends this wait as well.
        let Ok((now, rest)) = looking.await else { continue };
        let moment = Instant::now();
        if now != before {
            before = now;
            let since = unrest.map_or(moment, |(since, _)| since);
            unrest = Some((since, moment));
        }
        let is_time = |(since, as_is): (Instant, Instant)| {
            moment.duration_since(as_is) >= rest || moment.duration_since(since) >= LONGEST_UNREST
        };
        if unrest.is_some_and(is_time) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::oneshot;

    use super::*;
    use crate::definitions::reloads::Answer;

    /// How long anything may take that a test waits for.
    const PATIENCE: Duration = Duration::from_mins(3);

    const AIRFLOW: &str = "[airflow.main]\nurl = \"http://h\"\nauth = { token = { env = \"T\" } }\n";

    struct World {
        directory: tempfile::TempDir,
        looks: mpsc::Sender<Look>,
        proposals: mpsc::Receiver<Proposal>,
    }

    impl World {
        async fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("flowkeeper.toml");
            write(&path, &format!("include = [\"more/*.toml\"]\n{AIRFLOW}"));
            let (looks, asked) = mpsc::channel(1);
            let (found, proposals) = mpsc::channel(1);
            let parts = Parts { path, environment: Arc::default(), clock: Clock::system() };
            tokio::spawn(follow(parts, asked, found));
            let mut world = Self { directory, looks, proposals };
            assert_eq!(world.schedules().await, Ok(0), "what is there at the beginning");
            world
        }

        /// What is proposed next: how many schedules, or how many faults.
        async fn schedules(&mut self) -> Result<usize, usize> {
            let proposal = tokio::time::timeout(PATIENCE, self.proposals.recv()).await.unwrap().unwrap();
            match proposal.candidate.expect("files are always read anew") {
                Ok(set) => Ok(set.config.schedules.len()),
                Err(refusal) => Err(refusal.faults.faults.len()),
            }
        }

        /// What was written from `began` until now is proposed, and nothing before it; a busy machine may have
        /// written so slowly that what was there between counts.
        async fn comes_to(&mut self, count: usize, began: Instant, what: &str) {
            let was_slow = began.elapsed() > Duration::from_millis(500);
            loop {
                let proposed = self.schedules().await;
                if proposed == Ok(count) {
                    return;
                }
                assert!(was_slow, "{what}: {proposed:?}");
            }
        }

        async fn nothing(&mut self) {
            let proposal = tokio::time::timeout(Duration::from_millis(700), self.proposals.recv()).await;
            assert!(proposal.is_err(), "{proposal:?}");
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes in one step, so that nobody finds it empty.
    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        write(&new, text);
        std::fs::rename(new, path).unwrap();
    }

    fn schedule(name: &str) -> String {
        format!("[[schedule]]\nname = \"{name}\"\ncron = \"@daily\"\ndag = \"d\"\n")
    }

    #[tokio::test]
    async fn what_is_saved_added_broken_and_repaired_is_proposed_once_each() {
        let mut world = World::start().await;
        world.nothing().await;
        write(&world.at("more/a.toml"), &schedule("a"));
        assert_eq!(world.schedules().await, Ok(1), "a glob finds it");
        write(&world.at("more/a.toml"), &(schedule("a") + &schedule("b")));
        assert_eq!(world.schedules().await, Ok(2));
        write(&world.at("more/a.toml"), "[[schedule]]\nname = 1\n");
        assert!(world.schedules().await.is_err());
        write(&world.at("more/new"), &schedule("a"));
        std::fs::rename(world.at("more/new"), world.at("more/a.toml")).unwrap();
        assert_eq!(world.schedules().await, Ok(1));
        world.nothing().await;
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_steps_is_read_when_it_is_whole() {
        let mut world = World::start().await;
        let path = world.at("more/a.toml");
        let began = Instant::now();
        for text in ["", "[[schedule]]\n", "[[schedule]]\nname = \"a\"\n", &schedule("a")] {
            write(&path, text);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        world.comes_to(1, began, "no half of it").await;
        // Some editors move the old one away before they write the new one.
        let main = world.at("flowkeeper.toml");
        let began = Instant::now();
        std::fs::rename(&main, world.at("flowkeeper.toml~")).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        write(&main, &(AIRFLOW.to_owned() + &schedule("b") + &schedule("c")));
        world.comes_to(2, began, "it was there again in time").await;
        std::fs::remove_file(&main).unwrap();
        assert_eq!(world.schedules().await, Err(1), "it is really gone");
    }

    #[tokio::test]
    async fn a_directory_that_is_swapped_is_proposed_once_also_where_files_went_with_it() {
        let mut world = World::start().await;
        write(&world.at("more/a.toml"), &schedule("a"));
        write(&world.at("more/b.toml"), &schedule("b"));
        while world.schedules().await != Ok(2) {}
        write(&world.at("..two/a.toml"), &(schedule("a") + &schedule("c") + &schedule("d")));
        std::os::unix::fs::symlink("..two", world.at("link")).unwrap();
        std::fs::rename(world.at("more"), world.at("..one")).unwrap();
        std::fs::rename(world.at("link"), world.at("more")).unwrap();
        assert_eq!(world.schedules().await, Ok(3));
        world.nothing().await;
    }

    #[tokio::test]
    async fn what_has_become_empty_is_refused_until_it_is_written_or_asked_for() {
        let mut world = World::start().await;
        replace(&world.at("more/a.toml"), &schedule("a"));
        assert_eq!(world.schedules().await, Ok(1));
        let main = std::fs::read_to_string(world.at("flowkeeper.toml")).unwrap();
        write(&world.at("flowkeeper.toml"), "");
        assert_eq!(world.schedules().await, Err(1), "the main file is empty");
        replace(&world.at("flowkeeper.toml"), &main);
        assert_eq!(world.schedules().await, Ok(1));
        std::fs::rename(world.at("more"), world.at("elsewhere")).unwrap();
        assert_eq!(world.schedules().await, Err(1), "a glob finds nothing");
        std::fs::rename(world.at("elsewhere"), world.at("more")).unwrap();
        assert_eq!(world.schedules().await, Ok(1));
        write(&world.at("more/a.toml"), "");
        assert_eq!(world.schedules().await, Err(1), "an included file is empty");
        world.looks.send(Look::default()).await.unwrap();
        assert_eq!(world.schedules().await, Ok(0), "somebody asks: it is meant");
        replace(&world.at("more/a.toml"), "# nothing\n");
        assert_eq!(world.schedules().await, Ok(0));
        replace(&world.at("more/a.toml"), &schedule("b"));
        assert_eq!(world.schedules().await, Ok(1));
    }

    #[tokio::test]
    async fn the_main_file_alone_is_told_whenever_it_changes_right_or_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flowkeeper.toml");
        let main = |level: &str| {
            format!(
                "[server]\ndefinitions = \"zookeeper\"\n[log]\nlevel = \"{level}\"\n[zookeeper]\nconnect = \"h:1\"\n"
            )
        };
        write(&path, &main("info"));
        let (found, mut told) = mpsc::channel(1);
        let parts = Parts { path: path.clone(), environment: Arc::default(), clock: Clock::system() };
        tokio::spawn(follow_main(parts, found));
        let mut next = async || tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        let first = next().await.unwrap();
        write(&path, "[log]\nlevel = \"loud\"\n");
        assert!(next().await.is_err());
        write(&path, &main("debug"));
        assert_ne!(next().await.unwrap().log, first.log);
    }

    #[tokio::test]
    async fn whoever_asks_has_an_answer_also_when_nothing_has_changed() {
        let mut world = World::start().await;
        let (reply, answer) = oneshot::channel();
        world.looks.send(Look { reply: Some(reply), ..Look::default() }).await.unwrap();
        let mut proposal = world.proposals.recv().await.unwrap();
        proposal.replies.remove(0).send(Answer::Waits("tested".into())).unwrap();
        assert_eq!(answer.await, Ok(Answer::Waits("tested".into())));
    }
}
