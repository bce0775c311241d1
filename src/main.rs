//! The `tcmu-pr` program: arguments, log, run, exit status.

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::panic;
use std::process::{ExitCode, abort};

use clap::Parser;
use log::LevelFilter;
use tcmu_pr::cli::{self, Cli, Command, Person, Serve};
use tcmu_pr::control::dbus::Bus;
use tcmu_pr::control::journal;
use tcmu_pr::daemon::{self, Config, Flags};
use tcmu_pr::nexus::tap::Faults;

fn main() -> ExitCode {
    let (bus, output) = (&Bus::System, &mut io::stdout());
    let asked = match Cli::parse().command {
        Command::Serve(options) => {
            return ended(serve(&options).map_err(|error| (error, 1)));
        }
        Command::Status(options) => cli::status(&options, bus, output),
        Command::Show(options) => cli::show(&options, bus, output),
        Command::History(options) => cli::history(&options, bus, output),
        Command::Clear(options) => cli::change(options, bus, person(), output),
        Command::Preempt(options) => cli::change(options, bus, person(), output),
        Command::ClearFlushFailure(options) => cli::change(options, bus, person(), output),
        Command::Resize(options) => cli::change(options, bus, person(), output),
        Command::Check(options) => {
            journal::start(options.log_level);
            cli::check(&options, output)
        }
        Command::Completions(options) => cli::completions(&options, output),
        Command::Manual(options) => cli::manual(&options),
    };
    ended(asked.map_err(|error| {
        let status = error.exit_status();
        (error.into(), status)
    }))
}

fn ended(outcome: Result<(), (Box<dyn Error>, u8)>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, status)) => {
            eprintln!("tcmu-pr: {}", daemon::chain(&*error));
            ExitCode::from(status)
        }
    }
}

fn person() -> Person<io::StdinLock<'static>> {
    Person {
        input: io::stdin().lock(),
        is_there: io::stdin().is_terminal(),
    }
}

fn serve(options: &Serve) -> Result<(), Box<dyn Error>> {
    // RUST_LOG can say more of a single part: tcmu_pr::daemon::worker=trace names every command and who sends it.
    let by_environment = env::var_os(env_logger::DEFAULT_FILTER_ENV).is_some();
    let level = if by_environment {
        options.log_level.unwrap_or(LevelFilter::Info)
    } else {
        // How much of that is said, the daemon tells by and by.
        LevelFilter::Trace
    };
    journal::start(level);
    die_with_any_thread();
    daemon::run(&Config {
        run_directory: options.run_directory.clone(),
        state_directory: options.state_directory.clone(),
        bus: Bus::System,
        file: options.config.clone(),
        flags: Flags {
            log_level: options.log_level,
            engine: options.engine,
            poll: options.poll,
        },
        set_log_level: if by_environment {
            |_| {}
        } else {
            log::set_max_level
        },
        faults: Faults {
            late: options.fault_late,
            every: options.fault_every,
        },
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
