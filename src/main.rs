//! Parses the command line, carries the command out, and turns its end into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use flowkeeper::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::run(cli)).code()),
        Err(error) => {
            eprintln!("error: failed to start: the operating system gives no threads ({error})");
            ExitCode::FAILURE
        }
    }
}
