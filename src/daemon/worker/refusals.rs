//! Which refused commands the worker has told: the first of a nexus at once, then how many more, once a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Worker;
use crate::daemon::recorder::{Note, Record};
use crate::history::{Limiter, Rate};
use crate::lu::task::Pending;
use crate::scsi::nexus::ItNexus;
use crate::store::Store;

/// What is told of an I_T nexus: apart for its PERSISTENT RESERVE OUT, which it means to change something by.
const EACH: Rate = Rate {
    burst: 1,
    interval: Duration::from_secs(60),
};

/// What is told of all.
const ALL: Rate = Rate {
    burst: 100,
    interval: Duration::from_secs(1),
};

/// The most I_T nexuses that are told apart.
const TOLD_APART_MAX: usize = 1_024;

/// An I_T nexus, and whether it is its PERSISTENT RESERVE OUT.
pub(super) type Refusals = Limiter<(Arc<ItNexus>, bool)>;

pub(super) fn refusals() -> Refusals {
    Limiter::new(EACH, ALL, TOLD_APART_MAX, Instant::now())
}

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    /// Tells of commands that were refused in this turn, and of those before that were not told.
    pub(super) fn tell_refused(&mut self) {
        while let Some(refused) = self.parts.unit.refused() {
            let key = (Arc::clone(&refused.nexus), refused.attempt.is_some());
            if self.refusals.admits(&key, refused.count, Instant::now()) {
                self.parts.recorder.take_note(Note::Refused(refused));
            }
        }
        if self.refusals.due().is_some() {
            while let Some(more) = self.refusals.overdue(Instant::now()) {
                self.parts.recorder.take_note(Note::MoreRefused(more));
            }
        }
    }

    /// How long it takes until there is more to be told of them, if there is.
    pub(super) fn until_refused_is_told(&self) -> Option<Duration> {
        let due = self.refusals.due()?;
        Some(due.saturating_duration_since(Instant::now()))
    }
}
