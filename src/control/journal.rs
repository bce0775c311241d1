//! The log: to the journal with fields if standard error leads there, else to standard error as text.
//!
//! Whatever is told comes by the `log` crate. What an administrator may want to look for has a message identifier and
//! [`Field`]s: see [`tell`]. `RUST_LOG` counts in either case.
//!
//! Nobody floods it: of each place in the code, only so many lines are told at once, and the rest is counted. And
//! nobody forges it: a control character is written as what it is called.

use std::fmt::{Arguments, Write as _};
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use env_logger::Builder;
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::history::{Limiter, Rate};

/// How much is told by one place in the code.
const EACH: Rate = Rate {
    burst: 200,
    interval: Duration::from_secs(1),
};

/// How much is told by all.
const ALL: Rate = Rate {
    burst: 1_000,
    interval: Duration::from_millis(100),
};

/// More places than tell anything.
const PLACES_MAX: usize = 1_024;

/// A field of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The unit serial number.
    Unit,
    /// The backing object.
    Path,
    /// The I_T nexus.
    Nexus,
    /// The initiator.
    Initiator,
    /// The command, as T10 calls it.
    Operation,
}

impl Field {
    /// Its name in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Field::Unit => "TCMU_PR_UNIT",
            Field::Path => "TCMU_PR_PATH",
            Field::Nexus => "TCMU_PR_NEXUS",
            Field::Initiator => "TCMU_PR_INITIATOR",
            Field::Operation => "TCMU_PR_OPERATION",
        }
    }
}

/// What a line of the log is about, by a number that stays the same (`MESSAGE_ID` of the journal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageId {
    /// Registrations or the reservation have changed.
    Changed,
    /// An initiator has lost its registration by another's act.
    Fenced,
    /// Commands were refused with RESERVATION CONFLICT.
    Refused,
    /// The history can't be written, or can again.
    HistoryGap,
    /// A change was refused, since its record could not be stored.
    RecordNotStored,
    /// The record of the reservations can't be read.
    RecordUnreadable,
    /// A flush has failed.
    FlushFailed,
    /// Initiators that share a backstore can't be told apart.
    TapMissing,
    /// Commands take long, or do no more.
    Slow,
}

impl MessageId {
    /// As the journal writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            MessageId::Changed => "4210e1c5c726407c94fb4c7ef71a466b",
            MessageId::Fenced => "63bbb23890a94aec86670e38a14982ef",
            MessageId::Refused => "85f622791208482880932dfb98a15625",
            MessageId::HistoryGap => "6b7d232542e84278be9fbb80d390427e",
            MessageId::RecordNotStored => "9778a2ef578a44d9845633b4018c2f88",
            MessageId::RecordUnreadable => "86e3b205b4224ac4a421ba03d47a9bce",
            MessageId::FlushFailed => "21ee3ad9713641a99c8ae6d555fd6543",
            MessageId::TapMissing => "c7076263e415495b929e1cb0edac9c5b",
            MessageId::Slow => "2ece8c0ea23986f18495aff1b1040000",
        }
    }
}

/// Tells what an administrator may look for.
#[track_caller]
pub fn tell(level: Level, id: MessageId, fields: &[(Field, &str)], text: Arguments<'_>) {
    if level > log::max_level() {
        return;
    }
    let place = Location::caller();
    let mut pairs = vec![("MESSAGE_ID", id.as_str())];
    pairs.extend(fields.iter().map(|(field, value)| (field.name(), *value)));
    log::logger().log(
        &Record::builder()
            .level(level)
            .target("tcmu_pr")
            .file_static(Some(place.file()))
            .line(Some(place.line()))
            .key_values(&pairs)
            .args(text)
            .build(),
    );
}

/// Begins to log: that level, and what `RUST_LOG` says.
pub fn start(level: LevelFilter) {
    // RUST_LOG can say more of a single part: tcmu_pr::daemon::worker=trace names every command and who sends it.
    let text = Builder::new()
        .filter_level(level)
        .parse_default_env()
        .build();
    let journal = connected_to_journal().then(JournalLog::new);
    let journal = journal.and_then(Result::ok);
    let most = text.filter();
    let logger = LOGGER.get_or_init(|| Logger {
        text,
        journal: journal
            .map(|journal| Arc::new(journal.with_syslog_identifier("tcmu-pr".to_owned()))),
        background: OnceLock::new(),
        limiter: Mutex::new(Limiter::new(EACH, ALL, PLACES_MAX, Instant::now())),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(most);
    }
}

/// From now on a thread writes to the journal, if the log goes there. To be called when threads may be started.
pub fn in_background() -> io::Result<()> {
    let Some(logger) = LOGGER.get() else {
        return Ok(());
    };
    if let Some(journal) = &logger.journal {
        // It is the first, or another thread goes on.
        let _ = logger
            .background
            .set(Background::start(Arc::clone(journal))?);
    }
    Ok(())
}

/// A place in the code, file and line, and what it tells, by its message identifier.
type Place = (&'static str, u32, Option<String>);

struct Logger {
    /// Writes to standard error, and knows what is wanted.
    text: env_logger::Logger,
    journal: Option<Arc<JournalLog>>,
    background: OnceLock<Background>,
    limiter: Mutex<Limiter<Place>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// How many lines may wait for the journal.
const LINES_MAX: usize = 4_096;

/// How long the end of the program waits until all is in the journal.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The thread that writes to the journal: whoever logs never waits for it, whatever becomes of the journal.
struct Background {
    lines: Sender<Line>,
    /// How many there was no room for.
    lost: Arc<AtomicU64>,
}

/// What goes to the journal.
enum Line {
    Record {
        level: Level,
        target: String,
        place: (Option<&'static str>, Option<u32>),
        text: String,
        fields: Vec<(String, String)>,
    },
    /// Somebody wants to know when it is reached.
    Flush(Sender<()>),
}

impl Background {
    fn start(journal: Arc<JournalLog>) -> io::Result<Background> {
        let (lines, to_write) = bounded(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let left_out = Arc::clone(&lost);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(&journal, &to_write, &left_out))?;
        Ok(Background { lines, lost })
    }

    fn give(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn log(&self, record: &Record<'_>) {
        let mut fields = Fields(Vec::new());
        // It never fails.
        let _ = record.key_values().visit(&mut fields);
        self.give(Line::Record {
            level: record.level(),
            target: record.target().to_owned(),
            place: (record.file_static(), record.line()),
            text: record.args().to_string(),
            fields: fields.0,
        });
    }

    fn flush(&self) {
        let (reached, end) = bounded(1);
        self.give(Line::Flush(reached));
        // What is not written by then, is not.
        let _ = end.recv_timeout(FLUSH_PATIENCE);
    }
}

/// The fields of a line, gathered.
struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

fn write(journal: &JournalLog, lines: &Receiver<Line>, lost: &AtomicU64) {
    for line in lines {
        match line {
            Line::Record {
                level,
                target,
                place: (file, number),
                text,
                fields,
            } => {
                let pairs = fields.iter();
                let pairs: Vec<(&str, &str)> = pairs
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                journal.log(
                    &Record::builder()
                        .level(level)
                        .target(&target)
                        .file_static(file)
                        .line(number)
                        .key_values(&pairs)
                        .args(format_args!("{text}"))
                        .build(),
                );
            }
            Line::Flush(reached) => {
                // Whoever waits may have waited long enough.
                let _ = reached.send(());
            }
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let mut builder = Record::builder();
            builder.level(Level::Warn).target("tcmu_pr");
            journal.log(
                &builder
                    .args(format_args!(
                        "{count} lines were left out, since the journal was slow"
                    ))
                    .build(),
            );
        }
    }
}

impl Logger {
    fn write(&self, record: &Record<'_>) {
        match (&self.journal, self.background.get()) {
            (None, _) => self.text.log(record),
            (Some(journal), None) => journal.log(record),
            (Some(_), Some(background)) => background.log(record),
        }
    }

    /// Whether a line may be told, and what there is to be told of those before that were not.
    fn admits(&self, record: &Record<'_>, now: Instant) -> (bool, Vec<String>) {
        // Whoever wants to know every detail has asked for it.
        if record.level() > Level::Info {
            return (true, Vec::new());
        }
        let id = record.key_values().get(Key::from("MESSAGE_ID"));
        let place = (
            record.file_static().unwrap_or("?"),
            record.line().unwrap_or(0),
            id.map(|id| id.to_string()),
        );
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = limiter.admits(&place, 1, now);
        let mut left_out = Vec::new();
        while let Some(withheld) = limiter.overdue(now) {
            let (file, line, _) = withheld.of.unwrap_or(("anywhere", 0, None));
            let count = withheld.count;
            left_out.push(format!(
                "{count} more lines of one kind were left out ({file}:{line})"
            ));
        }
        (admitted, left_out)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.text.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.text.matches(record) {
            return;
        }
        let (admitted, left_out) = self.admits(record, Instant::now());
        if admitted {
            let text = on_one_line(&record.args().to_string());
            self.write(&record.to_builder().args(format_args!("{text}")).build());
        }
        for text in left_out {
            let mut builder = Record::builder();
            builder.level(Level::Warn).target("tcmu_pr");
            self.write(&builder.args(format_args!("{text}")).build());
        }
    }

    fn flush(&self) {
        match self.background.get() {
            Some(background) => background.flush(),
            None => self.text.flush(),
        }
    }
}

/// The same without control characters.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_begins_a_line_of_his_own() {
        assert_eq!(on_one_line("a\nb\t\u{1b}[31mc"), "a\\nb\\t\\u{1b}[31mc");
        assert_eq!(on_one_line("é → ü"), "é → ü");
        assert_eq!(on_one_line("\u{85}"), "\\u{85}");
    }

    #[test]
    fn of_one_place_so_many_lines_are_told_and_the_rest_is_counted() {
        let start = Instant::now();
        let logger = Logger {
            text: Builder::new().build(),
            journal: None,
            background: OnceLock::new(),
            limiter: Mutex::new(Limiter::new(EACH, ALL, PLACES_MAX, start)),
        };
        let line = |level, line, now| {
            let mut builder = Record::builder();
            builder.level(level).file_static(Some("src/a.rs"));
            logger.admits(&builder.line(Some(line)).build(), now)
        };
        for number in 0..300 {
            let (told, _) = line(Level::Warn, 7, start);
            assert_eq!(told, number < 200, "{number}");
        }
        assert!(line(Level::Warn, 8, start).0, "another place");
        assert!(line(Level::Debug, 7, start).0, "asked for");
        let later = start + EACH.interval;
        let (told, left_out) = line(Level::Error, 9, later);
        assert!(told);
        assert_eq!(
            left_out,
            ["100 more lines of one kind were left out (src/a.rs:7)"]
        );
    }

    #[test]
    fn every_message_has_an_identifier_of_its_own() {
        let all = [
            MessageId::Changed,
            MessageId::Fenced,
            MessageId::Refused,
            MessageId::HistoryGap,
            MessageId::RecordNotStored,
            MessageId::RecordUnreadable,
            MessageId::FlushFailed,
            MessageId::TapMissing,
            MessageId::Slow,
        ];
        let mut ids = all.map(MessageId::as_str).to_vec();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all.len());
        for id in ids {
            assert!(id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
        }
    }
}
