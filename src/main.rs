//! The `tcmu-pr` program: arguments, log, run, exit status.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::panic;
use std::process::{ExitCode, abort};

use clap::Parser;
use tcmu_pr::cli::{self, Cli, Command, Engine, Person, Serve};
use tcmu_pr::control::dbus::Bus;
use tcmu_pr::control::journal;
use tcmu_pr::daemon::worker::Poll;
use tcmu_pr::daemon::{self, Config, Effort};
use tcmu_pr::nexus::tap::Faults;
use tcmu_pr::store::engine::Wanted;

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
    journal::start(options.log_level);
    die_with_any_thread();
    daemon::run(&Config {
        run_directory: options.run_directory.clone(),
        state_directory: options.state_directory.clone(),
        bus: Bus::System,
        effort: Effort {
            engine: match options.engine {
                Engine::Best => Wanted::Best,
                Engine::Threads => Wanted::Threads,
            },
            poll: match options.poll {
                cli::Poll::Off => Poll::Off,
                cli::Poll::Adaptive => Poll::Adaptive,
                cli::Poll::Fixed(time) => Poll::Fixed(time),
            },
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
