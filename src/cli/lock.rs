//! `lock`: runs a command while it holds a distributed lock.
//!
//! Standard input and output are the command's. Its exit code is passed on; failures of our own have
//! codes that commands seldom use, so that scripts can tell them apart.

use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_current_process_group, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::arguments::LockArguments;
use super::context::Context;
use super::error::{CommandError, Exit};
use crate::app::connect;
use crate::clock::{boot_time, sleep_until};
use crate::locks::guard::{Phase, Step, step};
use crate::locks::{NodeData, lock_path};
use crate::zookeeper::{Holding, LockParts, SessionLock};

/// The lock was lost, and the command ended for it.
const LOST: u8 = 123;
/// The lock was not free, or not in time.
const NOT_GOT: u8 = 124;
/// flowkeeper could not do its part: the configuration, ZooKeeper.
const OWN_FAILURE: u8 = 125;
/// The command could not be started.
const NOT_STARTED: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;

/// How long the first session may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// The longest pause before the clock is looked at again: a suspend stops timers, not that clock.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The signals that are passed on. A terminal sends the first two to the command itself.
const SIGNALS: [Signal; 6] = [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2];

pub(super) async fn run(context: &Context, arguments: &LockArguments) -> Result<(), CommandError> {
    let own = |error: CommandError| error.with_exit(Exit::Of(OWN_FAILURE));
    let config = context.config().map_err(own)?;
    let zookeeper = config.zookeeper.as_ref().ok_or_else(|| {
        own(CommandError::usage("failed to lock: the configuration has no home ensemble")
            .hint("add a section [zookeeper] with `connect`"))
    })?;
    let path = absolute(&zookeeper.root, &arguments.path).map_err(own)?;
    let settings =
        connect::zookeeper(zookeeper.connection.clone(), Arc::new(context.environment.clone()), "zookeeper".to_owned())
            .map_err(|error| {
                own(CommandError::usage(format!("failed to {error}"))
                    .hint("set the variable or create the file that the configuration names"))
            })?;
    let mut signals =
        listen().map_err(|error| own(CommandError::failed(format!("failed to listen for signals: {error}"))))?;
    let data = NodeData {
        host: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        pid: Some(std::process::id()),
        command: arguments.command.first().map(|program| program.to_string_lossy().into_owned()),
        at: Some(context.now()),
        ..NodeData::default()
    };
    // A struct of texts and numbers has a JSON form.
    let data = serde_json::to_vec(&data).unwrap_or_default();
    let lock = SessionLock::acquire(LockParts { settings, path: path.clone(), data });
    let mut holding = lock.holding();
    let ended = match wait(&mut holding, arguments, &path, &mut signals).await {
        Ok(()) => hold(&mut holding, arguments, &path, &mut signals).await,
        Err(error) => Err(error),
    };
    lock.release().await;
    match ended {
        Ok(0) => Ok(()),
        Ok(code) => Err(CommandError::shown(Exit::Of(code))),
        Err(error) => Err(error),
    }
}

/// The znode that PATH means: an absolute path, or a name under the root's `locks/`.
fn absolute(root: &str, path: &str) -> Result<String, CommandError> {
    let absolute = if path.starts_with('/') { path.to_owned() } else { lock_path(root, path) };
    let parts = absolute.strip_prefix('/').unwrap_or_default().split('/');
    if path.is_empty() || parts.clone().any(|part| matches!(part, "" | "." | "..")) {
        return Err(CommandError::usage(format!("failed to lock `{path}`: it is no path of a znode"))
            .hint("write an absolute path, /jobs/reindex, or the name of a lock under the root's locks/"));
    }
    Ok(absolute)
}

/// Passes on what is sent to this process.
fn listen() -> std::io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, signals) = mpsc::unbounded_channel();
    for number in SIGNALS {
        let mut stream = signal(SignalKind::from_raw(number.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(number).is_ok() {} });
    }
    Ok(signals)
}

fn after_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(OWN_FAILURE)
}

/// Waits until the lock is held.
async fn wait(
    holding: &mut watch::Receiver<Holding>,
    arguments: &LockArguments,
    path: &str,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
) -> Result<(), CommandError> {
    let started = Instant::now();
    let deadline = arguments.timeout.map(|timeout| started + timeout);
    let mut connected = false;
    loop {
        let now = holding.borrow_and_update().clone();
        let mut limit = deadline;
        match now {
            Holding::Held { .. } => return Ok(()),
            Holding::Waiting { ahead } => {
                connected = true;
                if arguments.no_wait {
                    return Err(not_got(path, &format!("{ahead} before us hold it or wait for it")));
                }
            }
            Holding::Refused { reason } | Holding::Lost { reason } => {
                return Err(unreachable(path, &reason).with_exit(Exit::Of(OWN_FAILURE)));
            }
            // Once in the queue, an outage is waited out.
            Holding::Connecting { reason } if !connected => {
                let patience = started + CONNECT_PATIENCE;
                if Instant::now() >= patience {
                    let reason = reason.unwrap_or_else(|| "no session came about".to_owned());
                    return Err(unreachable(path, &reason).with_exit(Exit::Of(OWN_FAILURE)));
                }
                limit = Some(limit.map_or(patience, |limit| limit.min(patience)));
            }
            Holding::Connecting { .. } => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(not_got(path, "it did not come free in time"));
        }
        tokio::select! {
            _ = holding.changed() => {}
            Some(signal) = signals.recv() => return Err(CommandError::shown(Exit::Of(after_signal(signal)))),
            () = sleep_until(limit) => {}
        }
    }
}

fn not_got(path: &str, why: &str) -> CommandError {
    CommandError::failed(format!("failed to lock {path}: {why}; the command was not run"))
        .hint("`flowkeeper locks` shows who holds it")
        .with_exit(Exit::Of(NOT_GOT))
}

fn unreachable(path: &str, reason: &str) -> CommandError {
    CommandError::unreachable(format!("failed to lock {path}: {reason}; the command was not run"))
        .hint("is ZooKeeper running, can this host reach it, and may these credentials use the path?")
}

/// A command that runs, and how it is reached.
struct Running {
    child: Child,
    pid: Option<Pid>,
    /// Whether it leads a process group of its own; at a terminal it shares ours, to be able to read.
    leads: bool,
}

impl Running {
    fn start(arguments: &LockArguments, path: &str) -> Result<Self, CommandError> {
        let (program, rest) =
            arguments.command.split_first().ok_or_else(|| CommandError::usage("failed to run: no command"))?;
        let leads = !std::io::stdin().is_terminal();
        let mut command = Command::new(program);
        command.args(rest).env("FLOWKEEPER_LOCK", path);
        if leads {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|error| {
            let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED };
            CommandError::failed(format!("failed to run `{}`: {error}", program.to_string_lossy()))
                .hint("the lock was held and is given back")
                .with_exit(Exit::Of(code))
        })?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, pid, leads })
    }

    /// Passes a signal of ours on.
    fn pass(&self, signal: Signal) {
        let from_terminal = matches!(signal, Signal::INT | Signal::QUIT);
        if self.leads {
            self.send(signal);
        } else if let (false, Some(pid)) = (from_terminal, self.pid) {
            // It may have ended a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends a signal to the whole process group.
    fn send(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        let sent = match (self.leads, signal) {
            (true, _) => kill_process_group(pid, signal),
            // Our own group: this process would not live to tell.
            (false, Signal::KILL) => kill_process(pid, signal),
            (false, _) => kill_current_process_group(signal),
        };
        // Whoever has ended already needs no signal.
        let _ = sent;
    }
}

/// Runs the command for as long as the lock is certain; the exit code.
async fn hold(
    holding: &mut watch::Receiver<Holding>,
    arguments: &LockArguments,
    path: &str,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
) -> Result<u8, CommandError> {
    let mut running = Running::start(arguments, path)?;
    let mut phase = Phase::Running;
    let mut killed = false;
    loop {
        let pause = match step(&holding.borrow_and_update(), phase, arguments.grace, boot_time()) {
            Step::Wait(pause) => pause,
            Step::Ask(reason) => {
                eprintln!("the lock {path} is lost or uncertain ({reason}): asking the command to end");
                phase = Phase::Asked { at: boot_time() };
                running.send(Signal::TERM);
                continue;
            }
            Step::Kill(reason) if !killed => {
                eprintln!("the lock {path} is lost or uncertain ({reason}): ending the command");
                (killed, phase) = (true, Phase::Asked { at: boot_time() });
                running.send(Signal::KILL);
                continue;
            }
            Step::Kill(_) => LOOK_INTERVAL,
        };
        tokio::select! {
            ended = running.child.wait() => {
                let ended = ended.map_err(|error| {
                    CommandError::failed(format!("failed to wait for the command: {error}")).with_exit(Exit::Of(OWN_FAILURE))
                })?;
                if phase == Phase::Running {
                    return Ok(code_of(ended));
                }
                // Those of its group that it left behind go as well.
                if running.leads {
                    running.send(Signal::KILL);
                }
                return Ok(LOST);
            }
            Some(signal) = signals.recv() => {
                // What we send to our own group comes back to us.
                if phase == Phase::Running || running.leads {
                    running.pass(signal);
                }
            }
            changed = holding.changed() => {
                // The keeper of the lock has ended after its last word: the clock goes on.
                if changed.is_err() {
                    tokio::time::sleep(LOOK_INTERVAL.min(pause)).await;
                }
            }
            () = tokio::time::sleep(pause.min(LOOK_INTERVAL)) => {}
        }
    }
}

/// What a shell would say of it: its code, or 128 and the number of the signal that ended it.
fn code_of(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_a_path_or_a_name() {
        for (path, expected) in [
            ("warehouse", Some("/flowkeeper/locks/warehouse")),
            ("jobs/reindex", Some("/flowkeeper/locks/jobs/reindex")),
            ("/jobs/reindex", Some("/jobs/reindex")),
            ("", None),
            ("/", None),
            ("/a/", None),
            ("/a//b", None),
            ("../x", None),
        ] {
            assert_eq!(absolute("/flowkeeper", path).ok().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        for (raw, expected) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (15, 143), (9, 137)] {
            assert_eq!(code_of(ExitStatus::from_raw(raw)), expected, "{raw}");
        }
    }
}
