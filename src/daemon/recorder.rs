//! The thread that stores the records of a logical unit, so that a slow disk under the record holds up
//! nothing but the command that has changed them.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::chain;
use super::records::Keep;
use crate::lu::ToStore;
use crate::sys::wake::Waker;

/// Stores records, one at a time, without ever blocking the thread that owns the logical unit.
pub trait Record {
    /// Starts to store.
    fn submit(&mut self, to_store: ToStore);

    /// How it ended: whether it is stored. `None` until then.
    fn reap(&mut self) -> Option<bool>;
}

/// Stores records on a thread of its own. Dropping it waits until what it has is stored.
#[derive(Debug)]
pub struct Recorder {
    /// `None` only while it is dropped.
    jobs: Option<Sender<ToStore>>,
    done: Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// A recorder that calls `waker` when something is stored, or can't be.
    pub fn start(mut keeper: impl Keep + Send + 'static, waker: &Waker) -> io::Result<Recorder> {
        let (jobs, to_do) = unbounded::<ToStore>();
        let (stored, done) = unbounded();
        let waker = waker.clone();
        let thread = thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || {
                for to_store in to_do {
                    let outcome = keeper.save(&to_store);
                    if let Err(error) = &outcome {
                        log::error!(
                            "the record of the unit could not be stored: {}",
                            chain(error)
                        );
                    }
                    if stored.send(outcome.is_ok()).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        Ok(Recorder {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        })
    }
}

impl Record for Recorder {
    fn submit(&mut self, to_store: ToStore) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(to_store));
        assert!(
            matches!(sent, Some(Ok(()))),
            "the thread lives as long as the recorder"
        );
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
