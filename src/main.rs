//! The `tcmu-pr` program: arguments, log, run, exit status.

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::panic;
use std::process::{ExitCode, abort};

use clap::Parser;
use log::LevelFilter;
use nix::unistd::geteuid;
use tcmu_pr::cli::{self, Cli, Command, Person, Serve, exit};
use tcmu_pr::control::dbus::Bus;
use tcmu_pr::control::journal;
use tcmu_pr::daemon::{self, Config, Flags};
use tcmu_pr::nexus::tap::Faults;

fn main() -> ExitCode {
    // Told from the command line as it is: errors about that are JSON too.
    let json = env::args_os().any(|argument| argument == "--json");
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) if json && error.use_stderr() => {
            return ended(Err((error.to_string().into(), exit::USAGE)), json);
        }
        Err(error) => error.exit(),
    };
    ended(run(command), json)
}

/// What a command comes to: nothing, or an error and its exit status.
type Outcome = Result<(), (Box<dyn Error>, u8)>;

fn run(command: Command) -> Outcome {
    let (bus, output) = (&Bus::System, &mut io::stdout());
    if command.needs_root() && !geteuid().is_root() {
        return Err((cli::Error::NotRoot.into(), exit::FAILED));
    }
    let asked = match command {
        Command::Serve(options) => {
            return serve(&options).map_err(|error| (error, exit::FAILED));
        }
        Command::Status(options) => cli::status(&options, bus, output),
        Command::Show(options) => cli::show(&options, bus, output),
        Command::History(options) => cli::history(&options, bus, output),
        Command::Clear(options) => cli::change(options, bus, person(), output),
        Command::Preempt(options) => cli::change(options, bus, person(), output),
        Command::ClearFlushFailure(options) => cli::change(options, bus, person(), output),
        Command::Resize(options) => cli::change(options, bus, person(), output),
        Command::Nexus(options) => {
            journal::start(LevelFilter::Warn);
            cli::nexus(options, bus, person(), output)
        }
        Command::Check(options) => {
            journal::start(options.log_level);
            cli::check(&options, output)
        }
        Command::Commands(options) => cli::commands(&options, output),
        Command::Completions(options) => cli::completions(&options, output),
        Command::Manual(options) => cli::manual(&options),
    };
    asked.map_err(|error| {
        let status = error.exit_status();
        (error.into(), status)
    })
}

fn ended(outcome: Outcome, json: bool) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, status)) => {
            eprintln!("{}", exit::told(&daemon::chain(&*error), status, json));
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
    let ended = daemon::run(&Config {
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
    });
    log::logger().flush();
    ended?;
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
