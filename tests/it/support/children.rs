//! Processes that end with the test process, however that ends.
//!
//! The kernel kills a child when the thread that started it is gone (`PR_SET_PDEATHSIG`). Threads of
//! a test come and go, so one thread that lives as long as the process starts them all.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

type Order = (Command, Sender<io::Result<Child>>);

/// A command that the kernel kills when this process is gone, to be given to [`spawn`].
pub(crate) fn mortal(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Starts a command from the thread that stays.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                answer.send(command.spawn()).ok();
            }
        });
        sender
    });
    let (sender, answer) = channel();
    orders.send((command, sender)).expect("the thread lives as long as the process");
    answer.recv().expect("each order is answered")
}
