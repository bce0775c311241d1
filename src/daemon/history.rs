//! What the thread that stores records tells of changes and refusals: to the history of the unit, and to the log.
//!
//! It tells what is in force, after whoever waits for it has been told, and to a thread of the history's own: one that
//! can't be written, or hangs, refuses no command and holds up none. What was not written is counted, and told where it goes
//! on.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;
use log::Level;

use super::recorder::Note;
use super::records::{Keep, Records, UnitRecord};
use crate::control::journal::{self, Field, MessageId};
use crate::history::{
    self, Entry, Found, Kind, Ledger, Limiter, NexusName, Other, Rate, State, Withheld,
};
use crate::lu::{RefusedCommands, ToStore};
use crate::pr::Reservations;
use crate::pr::event::Event;
use crate::scsi::nexus::ItNexus;
use crate::store::saved;

/// How much is told of the changes of an I_T nexus. Those that remove the registrations of others have a limit of their
/// own, so that many harmless ones can't hide them.
const EACH: Rate = Rate {
    burst: 100,
    interval: Duration::from_secs(10),
};

/// How much is told of all changes by commands.
const ALL: Rate = Rate {
    burst: 1_000,
    interval: Duration::from_secs(1),
};

/// The most I_T nexuses that are told apart.
const TOLD_APART_MAX: usize = 1_024;

/// The most I_T nexuses of which it is known that they have been fenced.
const FENCED_MAX: usize = 8_190;

/// What the log calls those who are too many to be told apart.
const OTHERS: &str = "other I_T nexuses";

/// How much may wait to be written.
const NOTES_MAX: usize = 4_096;

/// How often it is tried again to write what could not be written, though nothing happens.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// How long the end of a unit waits until its history is written.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A keeper of records that tells what it has stored.
#[derive(Debug)]
pub struct Noting<K> {
    keeper: K,
    writer: Writer,
}

impl<K> Noting<K> {
    /// That keeper, and where it tells of what it stores.
    pub(super) fn new(keeper: K, writer: Writer) -> Noting<K> {
        Noting { keeper, writer }
    }
}

impl<K: Keep> Keep for Noting<K> {
    fn save(&mut self, to_store: &ToStore) -> Result<(), saved::Error> {
        let saved = self.keeper.save(to_store);
        if let Err(error) = &saved {
            self.writer.give(Note::NotStored(super::chain(error)));
        }
        saved
    }

    fn take_note(&mut self, note: Note) {
        self.writer.give(note);
    }
}

/// The thread that writes a history. Dropping it waits a moment until what it has is written.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while it is dropped.
    notes: Option<Sender<Note>>,
    /// How many there was no room for.
    lost: Arc<AtomicU64>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Writer {
    /// Begins a history, on that thread.
    fn start(begin: impl FnOnce() -> History + Send + 'static) -> io::Result<Writer> {
        let (notes, to_tell) = bounded(NOTES_MAX);
        let (running, ended) = bounded(0);
        let lost = Arc::new(AtomicU64::new(0));
        let not_told = Arc::clone(&lost);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                write(begin(), &to_tell, &not_told);
                drop(running);
            })?;
        Ok(Writer {
            notes: Some(notes),
            lost,
            ended,
        })
    }

    fn give(&self, note: Note) {
        let notes = self.notes.as_ref();
        if notes.is_none_or(|notes| notes.try_send(note).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.notes = None;
        let running: Result<(), RecvTimeoutError> = self.ended.recv_timeout(END_PATIENCE);
        if running == Err(RecvTimeoutError::Timeout) {
            log::warn!("the end of a history is not written, since its disk is slow");
        }
    }
}

fn write(mut history: History, notes: &Receiver<Note>, lost: &AtomicU64) {
    loop {
        let due = history.due();
        let note = match due.map_or_else(
            || notes.recv().map_err(RecvTimeoutError::from),
            |due| notes.recv_deadline(due),
        ) {
            Ok(note) => Some(note),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            history.lose(count, &io::Error::other("it takes too long"));
        }
        let now = Instant::now();
        if let Some(note) = note {
            history.take_note(note, now);
        }
        history.tell_due(now);
    }
    history.end();
}

/// What is known of the reservations when the unit is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// All of it.
    Known,
    /// What a loss of power has left.
    AfterPowerLoss,
    /// Nothing: the record can't be read.
    Unreadable,
}

/// Begins the history of a unit that is being started; `reservations` are `None` if they can't be read.
pub(super) fn begin(
    records: &Records,
    record: &UnitRecord,
    reservations: Option<&Reservations>,
    power_on: bool,
) -> io::Result<Writer> {
    let beginning = match reservations {
        None => Beginning::Unreadable,
        Some(_) if power_on => Beginning::AfterPowerLoss,
        Some(_) => Beginning::Known,
    };
    let file = records.history(&record.serial);
    let path = record.path.display().to_string();
    let serial = record.serial.clone();
    let state = reservations.map(State::from).unwrap_or_default();
    Writer::start(move || History::begin(file, path, serial, state, beginning))
}

/// Logs an error that concerns a unit.
#[track_caller]
pub(super) fn tell_unit(record: &UnitRecord, id: MessageId, text: &str) {
    let path = record.path.display().to_string();
    let fields = [(Field::Unit, record.serial.as_str()), (Field::Path, &path)];
    journal::tell(Level::Error, id, &fields, format_args!("{path}: {text}"));
}

/// How many read histories at a time. More would wait for the same disk.
const READERS_MAX: usize = 16;

/// Those who read histories for whoever asks, each on a thread of its own: the disk may be slow, or hang.
#[derive(Debug, Default)]
pub(super) struct Readers(Arc<()>);

impl Readers {
    /// Answers whoever asks for the history of the unit with this serial number.
    pub(super) fn answer(
        &self,
        records: &Records,
        serial: String,
        reply: Sender<Result<Found, String>>,
    ) {
        let file = records.history(&serial);
        if Arc::strong_count(&self.0) > READERS_MAX {
            let why = format!(
                "{READERS_MAX} others wait to read histories: does the disk of {} hang?",
                file.display()
            );
            // Whoever asked may have gone.
            let _ = reply.send(Err(why));
            return;
        }
        let reading = Arc::clone(&self.0);
        let read = move || {
            let found = read(&file, &serial);
            drop(reading);
            // Whoever asked may have gone.
            let _ = reply.send(found);
        };
        if let Err(error) = thread::Builder::new()
            .name("history".to_owned())
            .spawn(read)
        {
            log::error!("starting a thread: {error}");
        }
    }
}

fn read(file: &Path, serial: &str) -> Result<Found, String> {
    let is_serial = serial.bytes().all(|digit| digit.is_ascii_hexdigit());
    if serial.is_empty() || !is_serial {
        return Err(format!("{serial:?} is no serial number"));
    }
    history::read(file).map_err(|error| format!("{} can't be read: {error}", file.display()))
}

/// The history of a unit, and its part of the log.
#[derive(Debug)]
pub struct History {
    /// What the unit is called in the log: the path of its backing object.
    path: String,
    serial: String,
    ledger: Ledger,
    /// What was in force when something was told last.
    state: State,
    changes: Limiter<(Arc<ItNexus>, bool)>,
    /// Who has lost its registration by another's act, and has no other yet.
    fenced: HashSet<Arc<ItNexus>>,
    /// What could not be written.
    missing: Option<Missing>,
}

#[derive(Debug)]
struct Missing {
    since: Timestamp,
    /// When it is tried again.
    again: Instant,
    count: u64,
    why: String,
}

impl History {
    /// The history in that file, of the unit with that path and serial number, which is being started.
    pub fn begin(
        file: PathBuf,
        path: String,
        serial: String,
        state: State,
        beginning: Beginning,
    ) -> History {
        let now = Instant::now();
        let last = history::read(&file).map(|found| found.entries.into_iter().next_back());
        let mut history = History {
            path,
            serial,
            ledger: Ledger::new(file, history::SIZE_MAX),
            state,
            changes: Limiter::new(EACH, ALL, TOLD_APART_MAX, now),
            fenced: HashSet::new(),
            missing: None,
        };
        match last {
            Ok(last) => history.tell_beginning(beginning, last),
            Err(error) => history.lose(1, &error),
        }
        history
    }

    fn tell_beginning(&mut self, beginning: Beginning, last: Option<Entry>) {
        let kind = Kind::Other(match beginning {
            Beginning::Known => Other::Started,
            // Of a new unit nothing can have been lost.
            Beginning::AfterPowerLoss if last.is_some() => Other::StartedAfterPowerLoss,
            Beginning::AfterPowerLoss => Other::Started,
            Beginning::Unreadable => Other::RecordUnreadable,
        });
        let mut entry = Entry::new(Timestamp::now(), kind, self.state.clone());
        if let Some(last) = last {
            let known = last.kind != Kind::Other(Other::RecordUnreadable);
            if beginning == Beginning::Known && known && last.state != self.state {
                let why = "the daemon ended, or the node lost power, before it could note what has changed since";
                let mut gap = Entry::new(
                    Timestamp::now(),
                    Kind::Other(Other::Gap),
                    self.state.clone(),
                );
                gap.why = Some(why.to_owned());
                self.write(gap);
            }
            let gone = last.state.registered.saturating_sub(self.state.registered);
            if beginning == Beginning::AfterPowerLoss && gone > 0 {
                entry.why = Some(format!("{gone} registrations are gone"));
                entry.reservation_before = last.state.reservation;
                let text = format!(
                    "after a loss of power, {gone} registrations are gone that APTPL did not ask to keep"
                );
                self.log(Level::Warn, MessageId::Changed, &[], &text);
            }
        }
        self.write(entry);
    }

    fn take_note(&mut self, note: Note, now: Instant) {
        match note {
            Note::InForce(to_store) => self.tell_change(*to_store, now),
            Note::Refused(refused) => self.tell_refused(&refused),
            Note::MoreRefused(more) => self.tell_more_refused(&more),
            Note::NotStored(why) => self.log(
                Level::Error,
                MessageId::RecordNotStored,
                &[],
                &format!("the record of the unit could not be stored: {why}"),
            ),
        }
    }

    fn tell_change(&mut self, to_store: ToStore, now: Instant) {
        let Some(cause) = to_store.cause else {
            return;
        };
        let event = Event::new(cause, &to_store.next);
        self.state = State::from(&event.after);
        let fences = event.fenced().next().is_some();
        for one in &event.registrations {
            if one.after.is_some() {
                self.fenced.remove(&one.nexus);
            }
        }
        let room = FENCED_MAX.saturating_sub(self.fenced.len());
        let fenced = event.fenced().take(room);
        self.fenced.extend(fenced.map(|one| Arc::clone(&one.nexus)));
        if let Some(by) = &event.by {
            if !self.changes.admits(&(Arc::clone(by), fences), 1, now) {
                return;
            }
        }
        let entry = Entry::of(Timestamp::now(), &event);
        let (level, id) = if fences {
            (Level::Warn, MessageId::Fenced)
        } else {
            (Level::Info, MessageId::Changed)
        };
        let of = entry.by.as_ref().map(|by| format!(" of {by}"));
        let text = format!("{}{}: {entry}", entry.kind, of.unwrap_or_default());
        let operation = event.act.to_string();
        let mut fields = fields_of(entry.by.as_ref());
        fields.push((Field::Operation, operation));
        self.log(level, id, &fields, &text);
        self.write(entry);
    }

    fn tell_refused(&mut self, refused: &RefusedCommands) {
        let nexus = NexusName::from(&*refused.nexus);
        let attempted = refused.attempt.and_then(|attempt| attempt.act);
        let operation = attempted.map_or(refused.operation.to_owned(), |act| act.to_string());
        let key = refused
            .attempt
            .map(|attempt| history::in_hexadecimal(attempt.key));
        let with = key.as_ref().map(|key| format!(" with key {key}"));
        let text = format!(
            "{operation}{} of {nexus} is refused: RESERVATION CONFLICT",
            with.unwrap_or_default()
        );
        let mut fields = fields_of(Some(&nexus));
        fields.push((Field::Operation, operation.clone()));
        self.log(Level::Warn, MessageId::Refused, &fields, &text);
        if refused.attempt.is_some() || self.fenced.contains(&refused.nexus) {
            let mut entry = self.entry(Other::Refused);
            entry.by = Some(nexus);
            entry.operation = Some(operation);
            entry.key = key;
            entry.count = Some(refused.count);
            self.write(entry);
        }
    }

    /// Those that were not told one by one.
    fn tell_more_refused(&mut self, more: &Withheld<(Arc<ItNexus>, bool)>) {
        let of = more.of.as_ref();
        let nexus = of.map(|(nexus, _)| NexusName::from(&**nexus));
        let whose = nexus.as_ref().map(NexusName::to_string);
        let text = format!(
            "{} more commands of {} were refused: RESERVATION CONFLICT",
            more.count,
            whose.as_deref().unwrap_or(OTHERS)
        );
        self.log(
            Level::Warn,
            MessageId::Refused,
            &fields_of(nexus.as_ref()),
            &text,
        );
        let matters =
            |(nexus, attempts): &(Arc<ItNexus>, bool)| *attempts || self.fenced.contains(nexus);
        if of.is_none_or(matters) {
            let mut entry = self.entry(Other::Refused);
            entry.by = nexus;
            entry.count = Some(more.count);
            self.write(entry);
        }
    }

    /// When there is something to do though nothing happens.
    fn due(&self) -> Option<Instant> {
        let again = self.missing.as_ref().map(|missing| missing.again);
        self.changes.due().into_iter().chain(again).min()
    }

    fn tell_due(&mut self, now: Instant) {
        if let Some(missing) = self.missing.as_mut().filter(|missing| missing.again <= now) {
            missing.again = now + TRY_AGAIN;
            self.append(Vec::new());
        }
        while let Some(withheld) = self.changes.overdue(now) {
            self.tell_withheld(&withheld);
        }
    }

    fn tell_withheld(&mut self, withheld: &Withheld<(Arc<ItNexus>, bool)>) {
        let of = withheld.of.as_ref();
        let nexus = of.map(|(nexus, _)| NexusName::from(&**nexus));
        let fences = of.is_none_or(|(_, fences)| *fences);
        let what = if fences {
            "changes that can have removed registrations of others"
        } else {
            "changes of registrations and reservations"
        };
        let whose = nexus.as_ref().map(NexusName::to_string);
        let text = format!(
            "{} more {what}, by {}, are not told one by one",
            withheld.count,
            whose.as_deref().unwrap_or(OTHERS)
        );
        let fields = fields_of(nexus.as_ref());
        self.log(Level::Warn, MessageId::Changed, &fields, &text);
        let mut entry = self.entry(Other::Withheld);
        entry.by = nexus;
        entry.count = Some(withheld.count);
        entry.why = Some(what.to_owned());
        self.write(entry);
    }

    fn end(&mut self) {
        for withheld in self.changes.rest() {
            self.tell_withheld(&withheld);
        }
        if self.missing.is_some() {
            self.append(Vec::new());
        }
    }

    fn entry(&self, kind: Other) -> Entry {
        Entry::new(Timestamp::now(), Kind::Other(kind), self.state.clone())
    }

    fn write(&mut self, entry: Entry) {
        self.append(vec![entry]);
    }

    /// Writes entries, and before them how many could not be written.
    fn append(&mut self, mut entries: Vec<Entry>) {
        let count = entries.len() as u64;
        if let Some(missing) = &self.missing {
            let mut gap = self.entry(Other::Gap);
            gap.count = Some(missing.count);
            gap.why = Some(format!("since {:.6}: {}", missing.since, missing.why));
            entries.insert(0, gap);
        }
        match self.ledger.append(&entries) {
            Ok(()) => {
                if let Some(missing) = self.missing.take() {
                    let text = format!(
                        "the history can be written again; {} entries are missing in it",
                        missing.count
                    );
                    self.log(Level::Warn, MessageId::HistoryGap, &[], &text);
                }
            }
            Err(error) => self.lose(count, &error),
        }
    }

    /// Takes note of entries that are not in the history. It is logged once, until it can be written again.
    fn lose(&mut self, count: u64, error: &io::Error) {
        if let Some(missing) = &mut self.missing {
            missing.count += count;
            return;
        }
        let text = format!(
            "{} can't be written: {error}. Changes go on, and are counted: see that there is space on its file system",
            self.ledger.path().display()
        );
        self.log(Level::Error, MessageId::HistoryGap, &[], &text);
        self.missing = Some(Missing {
            since: Timestamp::now(),
            again: Instant::now() + TRY_AGAIN,
            count,
            why: error.to_string(),
        });
    }

    #[track_caller]
    fn log(&self, level: Level, id: MessageId, fields: &[(Field, String)], text: &str) {
        let unit = [
            (Field::Unit, self.serial.as_str()),
            (Field::Path, self.path.as_str()),
        ];
        let more = fields.iter().map(|(field, value)| (*field, value.as_str()));
        let fields: Vec<(Field, &str)> = unit.into_iter().chain(more).collect();
        journal::tell(level, id, &fields, format_args!("{}: {text}", self.path));
    }
}

fn fields_of(nexus: Option<&NexusName>) -> Vec<(Field, String)> {
    let Some(nexus) = nexus else {
        return Vec::new();
    };
    vec![
        (Field::Nexus, nexus.to_string()),
        (Field::Initiator, nexus.initiator.clone()),
    ]
}

#[cfg(test)]
mod tests;
