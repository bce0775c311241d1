//! How a unit performs: what a worker counts and times of its commands.
//!
//! # How precise that is
//!
//! The clock is read once in a turn of the loop that takes commands, and once when the answers of a turn are published. So
//! a latency is that between a command's turn and the publication of its answer, which is when the kernel can see it. What
//! the command has waited on the ring, and in the kernel, is not in it. Latencies are whole microseconds, and the
//! percentiles are true to one in a hundred. What is longer than [`LATENCY_MAX_US`] counts as that long in percentiles.
//!
//! BUSY and RESERVATION CONFLICT are the answers to commands that were not begun: they are counted, and have no latency.
//!
//! # Windows
//!
//! What is told as a rate or a percentile is that of the last whole [`WINDOW`]. Windows follow each other whether
//! anything happens or not; nobody wakes for them: whoever comes next closes those that have passed.

mod slow;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use log::Level;

use super::Worker;
use crate::control::journal::{self, Field, MessageId};
use crate::daemon::recorder::Record;
use crate::lu::task::{Delivery, Pending, Tag};
use crate::scsi::Status;
use crate::store::Store;
use crate::tcmu::ring::Command;
pub use slow::SLOW;
use slow::Spell;

/// How long what is measured is gathered before it is told.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The longest latency that percentiles tell from a longer one, in microseconds.
pub const LATENCY_MAX_US: u64 = 100_000_000;

/// As many significant decimal digits as percentiles have.
const DIGITS: u8 = 2;

/// Up to how many microseconds commands take that are counted together since the start. Some take longer than the last.
pub const LATENCY_BOUNDS_US: [u64; 20] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// How often commands are looked for that take long.
const SLOW_CHECK: Duration = Duration::from_secs(1);

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// READ.
    Read,
    /// WRITE, WRITE AND VERIFY and WRITE ATOMIC.
    Write,
    /// SYNCHRONIZE CACHE.
    Flush,
    /// All else.
    Other,
}

impl Kind {
    /// All of them, in the order of [`Report`].
    pub const ALL: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Flush, Kind::Other];

    /// That of the commands with this operation code.
    fn of(operation_code: u8) -> Kind {
        match operation_code {
            0x08 | 0x28 | 0x88 | 0xa8 => Kind::Read,
            0x0a | 0x2a | 0x2e | 0x8a | 0x8e | 0x9c | 0xaa | 0xae => Kind::Write,
            0x35 | 0x91 => Kind::Flush,
            _ => Kind::Other,
        }
    }
}

/// What was measured of one kind of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Commands answered.
    pub commands: u64,
    /// The bytes that were read or written by those that went well.
    pub bytes: u64,
    /// How many of those with a latency took up to each of [`LATENCY_BOUNDS_US`] and longer than the one before, and how many
    /// longer than all.
    pub latencies: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// All latencies together, in microseconds.
    pub latency_sum_us: u64,
}

/// The same in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Commands that have a latency.
    pub commands: u64,
    /// The bytes that were read or written by those that went well.
    pub bytes: u64,
    /// As many took no longer than this: 50, 99 and 99.9 in a hundred, in microseconds.
    pub p50_us: u64,
    /// See [`Flow::p50_us`].
    pub p99_us: u64,
    /// See [`Flow::p50_us`].
    pub p999_us: u64,
    /// None took longer than this.
    pub max_us: u64,
}

/// What one whole window has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// In the order of [`Kind::ALL`].
    pub flows: [Flow; 4],
    /// The most commands that were taken and not answered at a time.
    pub depth_max: usize,
}

/// What a worker tells of how its unit performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Since the start, in the order of [`Kind::ALL`].
    pub totals: [Total; 4],
    /// The last whole window; `None` in the first.
    pub window: Option<Window>,
    /// Commands taken and not answered.
    pub depth: usize,
    /// For how long the oldest of these has been taken.
    pub oldest: Duration,
    /// Commands answered with BUSY.
    pub busy: u64,
    /// Commands that took longer than [`SLOW`].
    pub slow: u64,
}

/// A command that was taken from a ring.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: Instant,
    epoch: u32,
    /// The operation code, and the byte that may hold a service action.
    cdb: [u8; 2],
}

/// The commands that were taken from one ring and not answered, by the kernel's id. The kernel gives the lowest that is free.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    taken: Vec<Option<Taken>>,
}

impl InFlight {
    fn insert(&mut self, id: u16, taken: Taken) {
        let index = usize::from(id);
        if index >= self.taken.len() {
            self.taken.resize(index + 1, None);
        }
        self.taken[index] = Some(taken);
    }

    /// Takes out that of this id, unless the ring was reset since.
    fn remove(&mut self, id: u16, epoch: u32) -> Option<Taken> {
        let taken = self.taken.get_mut(usize::from(id))?;
        taken.take_if(|taken| taken.epoch == epoch)
    }

    fn iter(&self) -> impl Iterator<Item = &Taken> {
        self.taken.iter().flatten()
    }
}

/// An answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
struct Answered {
    /// Its SCSI status.
    status: u8,
    /// As many bytes as were read or written if that is GOOD.
    bytes: u64,
}

/// What a window gathers of one kind.
#[derive(Debug)]
struct Gathered {
    latencies: Histogram<u32>,
    bytes: u64,
    max_us: u64,
}

impl Gathered {
    fn new() -> Gathered {
        let latencies = Histogram::new_with_max(LATENCY_MAX_US, DIGITS);
        Gathered {
            latencies: latencies.expect("the bounds are good"),
            bytes: 0,
            max_us: 0,
        }
    }

    fn record(&mut self, latency_us: u64, bytes: u64) {
        self.latencies.saturating_record(latency_us);
        self.bytes += bytes;
        self.max_us = self.max_us.max(latency_us);
    }

    /// Gives what was gathered, and begins again.
    fn close(&mut self) -> Flow {
        let flow = Flow {
            commands: self.latencies.len(),
            bytes: self.bytes,
            p50_us: self.percentile(0.5),
            p99_us: self.percentile(0.99),
            p999_us: self.percentile(0.999),
            max_us: self.max_us,
        };
        if flow.commands > 0 {
            self.latencies.reset();
        }
        self.bytes = 0;
        self.max_us = 0;
        flow
    }

    /// The histogram gives the upper end of a bucket: never more is told than the longest latency there was.
    fn percentile(&self, quantile: f64) -> u64 {
        self.latencies.value_at_quantile(quantile).min(self.max_us)
    }
}

/// What is measured of one unit.
#[derive(Debug)]
pub(super) struct Measure {
    /// What time it is.
    clock: fn() -> Instant,
    totals: [Total; 4],
    gathered: [Gathered; 4],
    window_end: Instant,
    window: Option<Window>,
    depth: usize,
    depth_max: usize,
    busy: u64,
    /// When this turn has taken commands, if it has.
    turn: Option<Instant>,
    /// What this turn has answered. Kept to be used again.
    answered: Vec<(Taken, Answered)>,
    next_check: Instant,
    spell: Spell,
}

impl Measure {
    /// What is measured from now on, by that clock.
    pub(super) fn new(clock: fn() -> Instant) -> Measure {
        let now = clock();
        Measure {
            clock,
            totals: [Total::default(); 4],
            gathered: [(); 4].map(|()| Gathered::new()),
            window_end: now + WINDOW,
            window: None,
            depth: 0,
            depth_max: 0,
            busy: 0,
            turn: None,
            answered: Vec::new(),
            next_check: now,
            spell: Spell::default(),
        }
    }

    /// Takes note of a command that this turn has taken from a ring.
    pub(super) fn taken(&mut self, port: &mut InFlight, command: &Command) {
        let at = match self.turn {
            Some(at) => at,
            None => self.begin_turn((self.clock)()),
        };
        let taken = Taken {
            at,
            epoch: command.id.epoch,
            cdb: [command.cdb[0], command.cdb[1]],
        };
        port.insert(command.id.id, taken);
        self.depth += 1;
        self.depth_max = self.depth_max.max(self.depth);
    }

    fn begin_turn(&mut self, now: Instant) -> Instant {
        self.close_windows(now);
        self.turn = Some(now);
        now
    }

    /// Takes note of an answer that this turn has written to a command with so large a buffer.
    pub(super) fn answered(&mut self, port: &mut InFlight, delivery: &Delivery, buffer: u64) {
        let Tag { command, epoch, .. } = delivery.tag;
        if let Some(taken) = port.remove(command, epoch) {
            self.depth -= 1;
            let bytes = match Kind::of(taken.cdb[0]) {
                Kind::Read => delivery.data_in_length.map_or(buffer, u64::from),
                Kind::Write => buffer,
                Kind::Flush | Kind::Other => 0,
            };
            let status = delivery.status;
            self.answered.push((taken, Answered { status, bytes }));
        }
    }

    /// Forgets the commands of a port: nobody waits for their answers any more.
    pub(super) fn forget(&mut self, port: &mut InFlight) {
        self.depth -= port.iter().count();
        port.taken.clear();
    }

    /// Ends a turn, whose answers are published. Tells what time it is if it is time to [`Measure::look`] for what takes long.
    pub(super) fn end_turn(&mut self) -> Option<Instant> {
        let taken = self.turn.take();
        let now = if !self.answered.is_empty() {
            let now = (self.clock)();
            self.record(now);
            now
        } else if let Some(taken) = taken {
            taken
        } else if self.needs_looks() {
            (self.clock)()
        } else {
            return None;
        };
        (now >= self.next_check).then_some(now)
    }

    /// Whether time must not pass without a turn: something may take long.
    pub(super) fn needs_looks(&self) -> bool {
        self.depth > 0 || self.spell.is_on()
    }

    fn record(&mut self, now: Instant) {
        self.close_windows(now);
        for (taken, Answered { status, bytes }) in self.answered.drain(..) {
            let kind = Kind::of(taken.cdb[0]) as usize;
            let total = &mut self.totals[kind];
            total.commands += 1;
            if status == Status::Busy as u8 {
                self.busy += 1;
            }
            if status == Status::Busy as u8 || status == Status::ReservationConflict as u8 {
                continue;
            }
            let is_good = status == Status::Good as u8;
            let bytes = if is_good { bytes } else { 0 };
            let latency = now.saturating_duration_since(taken.at);
            let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            total.bytes += bytes;
            total.latencies[LATENCY_BOUNDS_US.partition_point(|&bound| bound < latency_us)] += 1;
            total.latency_sum_us += latency_us;
            self.gathered[kind].record(latency_us, bytes);
            if latency > SLOW {
                self.spell.ended(now, latency);
            }
        }
    }

    /// Closes the windows that have passed.
    fn close_windows(&mut self, now: Instant) {
        let Some(late) = now.checked_duration_since(self.window_end) else {
            return;
        };
        let flows = self.gathered.each_mut().map(Gathered::close);
        let depth_max = std::mem::replace(&mut self.depth_max, self.depth);
        let mut window = Window { flows, depth_max };
        // In those between, nothing was taken and nothing answered.
        let more = u32::try_from(late.as_nanos() / WINDOW.as_nanos()).unwrap_or(u32::MAX);
        if more > 0 {
            window = Window {
                depth_max: self.depth,
                ..Window::default()
            };
        }
        self.window = Some(window);
        self.window_end += WINDOW * (more + 1);
    }

    /// Looks for commands that take long, and logs what the unit of this serial number has to be told of.
    pub(super) fn look<'a>(
        &mut self,
        now: Instant,
        serial: &str,
        ports: impl Iterator<Item = &'a InFlight>,
    ) {
        self.next_check = now + SLOW_CHECK;
        let waiting = ports.flat_map(InFlight::iter).filter_map(|taken| {
            let age = now.saturating_duration_since(taken.at);
            (age > SLOW).then_some((taken.cdb, age))
        });
        if let Some(news) = self.spell.look(now, waiting) {
            let fields = [(Field::Unit, serial)];
            let text = format_args!("unit {serial}: {news}");
            journal::tell(Level::Warn, MessageId::Slow, &fields, text);
        }
    }

    /// How the unit performs now.
    pub(super) fn report<'a>(&mut self, ports: impl Iterator<Item = &'a InFlight>) -> Report {
        self.report_at((self.clock)(), ports)
    }

    fn report_at<'a>(&mut self, now: Instant, ports: impl Iterator<Item = &'a InFlight>) -> Report {
        self.close_windows(now);
        let oldest = ports.flat_map(InFlight::iter).map(|taken| taken.at).min();
        Report {
            totals: self.totals,
            window: self.window,
            depth: self.depth,
            oldest: oldest.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            busy: self.busy,
            slow: self.spell.commands(),
        }
    }
}

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    /// Takes note of the end of a turn, and looks after commands that take long when it is time to.
    pub(super) fn end_turn(&mut self) {
        if let Some(now) = self.measure.end_turn() {
            let ports = self.ports.values().map(|port| &port.in_flight);
            self.measure.look(now, self.parts.unit.serial(), ports);
        }
    }

    /// Has commands timed by another clock than the kernel's, from now on. For tests.
    pub fn set_clock(&mut self, clock: fn() -> Instant) {
        self.measure = Measure::new(clock);
    }

    /// How the unit performs now.
    pub(super) fn measured(&mut self) -> Report {
        let ports = self.ports.values().map(|port| &port.in_flight);
        self.measure.report(ports)
    }
}

#[cfg(test)]
mod tests;
