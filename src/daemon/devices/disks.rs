//! What the file systems of disks are asked: what is at a path, whether it could be served, and to open it. One that does not
//! answer costs its own disks, and nobody else anything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use crate::daemon::questions::Questions;
use crate::daemon::records::Records;
use crate::daemon::refusal::Refusal;
use crate::daemon::unit::{mode, provisioning};
use crate::lu::task::Pending;
use crate::scsi::provisioning::Provisioning;
use crate::store::backing::{self, Backing, BackingId, Look, Mode};
use crate::store::engine::{self, Engine};
use crate::sys::wake::Waker;
use crate::tcmu::config::DiskOptions;

/// A disk that is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What was found at its path.
    pub(super) id: Option<BackingId>,
    /// In bytes.
    pub(super) size: u64,
    /// In bytes.
    pub(super) block_size: u32,
    /// How it is served.
    pub(super) disk: DiskOptions,
    /// What does its I/O.
    pub(super) engine: engine::Wanted,
}

/// A disk that can be served.
pub(super) struct Opened {
    pub(super) backing: Arc<Backing>,
    pub(super) provisioning: Provisioning,
    pub(super) waker: Waker,
    pub(super) store: Engine<Pending>,
    pub(super) engine: engine::Kind,
}

/// What the file systems of disks have been asked.
pub(super) struct Disks {
    looks: Questions<(), Result<Look, backing::Error>>,
    probes: Questions<Mode, Result<Look, backing::Error>>,
    opens: Questions<Wanted, Result<Opened, Refusal>>,
    late: Receiver<()>,
}

impl Default for Disks {
    fn default() -> Disks {
        let (tell, late) = unbounded();
        Disks {
            looks: Questions::new(tell.clone()),
            probes: Questions::new(tell.clone()),
            opens: Questions::new(tell),
            late,
        }
    }
}

impl Disks {
    /// Where it is told that an answer has come that was waited for in vain.
    pub(super) fn late(&self) -> Receiver<()> {
        self.late.clone()
    }

    /// Asks what is at a path.
    pub(super) fn ask(&self, path: &Path) {
        let own = path.to_owned();
        self.looks.ask(path, (), move || Backing::look(&own));
    }

    /// What is at a path, if the answer comes within this time from when it was asked for.
    pub(super) fn look(&self, path: &Path, patience: Duration) -> Result<Look, Refusal> {
        self.ask(path);
        let answer = self.looks.take(path, &(), patience);
        Ok(answer.ok_or_else(|| no_answer(path))??)
    }

    /// What is at a path, and whether it could be served, unless it is one of those that are, if that was told meanwhile.
    pub(super) fn probe(
        &self,
        path: &Path,
        mode: Mode,
        served: impl Fn(&BackingId) -> bool + Send + 'static,
    ) -> Result<Look, Refusal> {
        let own = path.to_owned();
        self.probes.ask(path, mode, move || {
            let look = Backing::look(&own)?;
            if !look.id.as_ref().is_some_and(served) {
                Backing::probe(&own, mode)?;
            }
            Ok(look)
        });
        let answer = self.probes.take(path, &mode, Duration::ZERO);
        Ok(answer.ok_or_else(|| no_answer(path))??)
    }

    /// Nobody waits any more for whether this could be served.
    pub(super) fn forget_probe(&self, path: &Path) {
        self.probes.keep(|other| other != path);
    }

    /// Asks for a disk to be opened, unless one is being opened under another name that may be the same.
    pub(super) fn open(&self, path: &Path, wanted: Wanted, records: &Records) {
        let same = |other: &Path, asked: &Wanted| {
            other != path && asked.id.is_some() && asked.id == wanted.id
        };
        if self.opens.any(same) {
            return;
        }
        let (own, records) = (path.to_owned(), records.clone());
        self.opens
            .ask(path, wanted, move || Opened::of(&own, &wanted, &records));
    }

    /// The opened disk, if it is there within this time from when it was asked for.
    pub(super) fn opened(
        &self,
        path: &Path,
        wanted: &Wanted,
        patience: Duration,
    ) -> Result<Opened, Refusal> {
        let answer = self.opens.take(path, wanted, patience);
        answer.unwrap_or_else(|| Err(no_answer(path)))
    }

    /// Nobody wants any other disks to be looked at or opened any more.
    pub(super) fn keep(&self, wanted: impl Fn(&Path) -> bool) {
        self.looks.keep(&wanted);
        self.opens.keep(&wanted);
    }
}

fn no_answer(path: &Path) -> Refusal {
    Refusal::NoAnswer {
        path: path.to_owned(),
    }
}

impl Opened {
    fn of(path: &Path, wanted: &Wanted, records: &Records) -> Result<Opened, Refusal> {
        // What was there may have gone since it was looked at.
        check_gone(records, path, &Backing::look(path)?)?;
        let mode = mode(&wanted.disk);
        let backing = Backing::open_with(path, wanted.size, wanted.block_size, mode)?;
        let backing = Arc::new(backing);
        let start = |source| Refusal::Start {
            path: path.to_owned(),
            source,
        };
        let waker = Waker::new().map_err(start)?;
        let (store, engine) = Engine::new(&backing, &waker, wanted.engine).map_err(start)?;
        Ok(Opened {
            provisioning: provisioning(&backing, &wanted.disk)?,
            backing,
            waker,
            store,
            engine,
        })
    }
}

/// A disk that was there once is not made anew, empty, where its file is missing: its file system may just not be mounted.
pub(super) fn check_gone(records: &Records, path: &Path, look: &Look) -> Result<(), Refusal> {
    if look.id.is_some() || records.known(&look.name)?.is_none() {
        return Ok(());
    }
    Err(Refusal::Gone {
        path: path.to_owned(),
    })
}
