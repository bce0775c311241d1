//! The `tcmu-pr` program: arguments, log, run, exit status.

use std::error::Error;
use std::io;
use std::panic;
use std::process::{ExitCode, abort};

use clap::Parser;
use tcmu_pr::cli::{self, Cli, Command, Serve};
use tcmu_pr::control::dbus::Bus;
use tcmu_pr::daemon::{self, Config};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve(&options),
        Command::Status(options) => {
            cli::status(&options, &Bus::System, &mut io::stdout()).map_err(Box::from)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcmu-pr: {}", daemon::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Serve) -> Result<(), Box<dyn Error>> {
    env_logger::Builder::new()
        .filter_level(options.log_level)
        .init();
    die_with_any_thread();
    daemon::run(&Config {
        run_directory: options.run_directory.clone(),
        state_directory: options.state_directory.clone(),
        bus: Bus::System,
    })?;
    Ok(())
}

/// A panic is a broken invariant. The process ends, whichever thread it was; systemd starts it again, and it
/// goes on from what it has stored.
fn die_with_any_thread() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        abort();
    }));
}
