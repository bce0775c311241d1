//! The thread that stores the records of a logical unit, so that a slow disk under the record holds up
//! nothing but the command that has changed them.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::records::Keep;
use crate::history::Withheld;
use crate::lu::{RefusedCommands, ToStore};
use crate::scsi::nexus::ItNexus;
use crate::sys::wake::Waker;

/// What happens that whoever keeps the history has to know.
#[derive(Debug)]
pub enum Note {
    /// This is in force.
    InForce(Box<ToStore>),
    /// Commands were refused.
    Refused(RefusedCommands),
    /// More were than were told: of an I_T nexus, its PERSISTENT RESERVE OUT or the others.
    MoreRefused(Withheld<(Arc<ItNexus>, bool)>),
    /// The record could not be stored, and why.
    NotStored(String),
}

/// Stores records, one at a time, without ever blocking the thread that owns the logical unit.
pub trait Record {
    /// Starts to store.
    fn submit(&mut self, to_store: ToStore);

    /// How it ended: whether it is stored. `None` until then.
    fn reap(&mut self) -> Option<bool>;

    /// Passes on what has happened.
    fn take_note(&mut self, _note: Note) {}
}

/// What the thread has to do.
#[derive(Debug)]
enum Job {
    Store(ToStore),
    Note(Note),
}

/// Stores records on a thread of its own. Dropping it waits until what it has is stored.
#[derive(Debug)]
pub struct Recorder {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    done: Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// A recorder that calls `waker` when something is stored, or can't be.
    pub fn start(mut keeper: impl Keep + Send + 'static, waker: &Waker) -> io::Result<Recorder> {
        let (jobs, to_do) = unbounded();
        let (stored, done) = unbounded();
        let waker = waker.clone();
        let thread = thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || {
                for job in to_do {
                    match job {
                        Job::Store(to_store) => {
                            let is_stored = keeper.save(&to_store).is_ok();
                            if stored.send(is_stored).is_err() {
                                break;
                            }
                            waker.wake();
                            if is_stored || is_incident(&to_store) {
                                keeper.take_note(Note::InForce(Box::new(to_store)));
                            }
                        }
                        Job::Note(note) => keeper.take_note(note),
                    }
                }
            })?;
        Ok(Recorder {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        })
    }
}

/// Whether it has taken effect whether or not it can be stored: a reset, or the loss of an I_T nexus.
fn is_incident(to_store: &ToStore) -> bool {
    let cause = to_store.cause.as_ref();
    cause.is_some_and(|cause| cause.act.is_incident())
}

impl Recorder {
    fn give(&self, job: Job) {
        let jobs = self.jobs.as_ref();
        let jobs = jobs.expect("it is there until the recorder is dropped");
        let is_sent = jobs.send(job).is_ok();
        assert!(is_sent, "the thread lives as long as the recorder");
    }
}

impl Record for Recorder {
    fn submit(&mut self, to_store: ToStore) {
        self.give(Job::Store(to_store));
    }

    fn take_note(&mut self, note: Note) {
        self.give(Job::Note(note));
    }

    fn reap(&mut self) -> Option<bool> {
        self.done.try_recv().ok()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.jobs = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            log::error!("the thread that stores records had panicked");
        }
    }
}
