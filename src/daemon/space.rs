//! Watches how much space is left where a backing object lies, and says when it becomes little: initiators write what
//! they have been promised, and nobody else tells them in time.
//!
//! Each watch is a thread of its own, which holds nothing of the unit: asking a file system may hang.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::store::space;

/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How far what is left must be from the threshold to count as beyond it, in bytes: half a threshold set on either side
/// (SBC-4, threshold sets).
const MARGIN: u64 = 1 << 19;

/// Of what is left, and decreases (SBC-3, armed decreasing threshold).
#[derive(Debug)]
struct Threshold {
    /// In bytes.
    available: u64,
    /// It has not been reached since there was more.
    is_armed: bool,
}

impl Threshold {
    fn new(available: u64) -> Threshold {
        Threshold {
            available,
            is_armed: true,
        }
    }

    /// Whether it is reached now that so much is left: once, until there has been more.
    fn is_reached(&mut self, available: u64) -> bool {
        if available > self.available.saturating_add(MARGIN) {
            self.is_armed = true;
        }
        let is_below = available < self.available.saturating_sub(MARGIN);
        is_below && std::mem::replace(&mut self.is_armed, false)
    }
}

/// A watch, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    _running: Sender<()>,
}

impl Watch {
    /// Calls `warn` whenever less than so many bytes are left in the file system of `path`: once, until there is more
    /// again.
    pub(super) fn start(
        path: PathBuf,
        available: u64,
        warn: impl Fn() + Send + 'static,
    ) -> io::Result<Watch> {
        let (running, ended) = bounded::<()>(0);
        let mut threshold = Threshold::new(available);
        let mut look = move || match space::figures_at(&path) {
            Ok(figures) if threshold.is_reached(figures.available) => {
                log::warn!(
                    "{}: {} bytes are left in its file system: initiators are warned",
                    path.display(),
                    figures.available
                );
                warn();
            }
            Ok(_) => {}
            Err(error) => log::debug!("{}: {error}", path.display()),
        };
        thread::Builder::new()
            .name("space".to_owned())
            .spawn(move || {
                look();
                while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                    look();
                }
            })?;
        Ok(Watch { _running: running })
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_threshold_is_reached_once_until_there_is_more() {
        let mut threshold = Threshold::new(100 * MIB);
        for (available, is_reached) in [
            (200 * MIB, false),
            (100 * MIB, false),
            (100 * MIB - MARGIN, false),
            (100 * MIB - MARGIN - 1, true),
            (10 * MIB, false),
            (100 * MIB + MARGIN, false),
            (10 * MIB, false), // it was not far enough above
            (100 * MIB + MARGIN + 1, false),
            (0, true),
            (0, false),
        ] {
            assert_eq!(threshold.is_reached(available), is_reached, "{available}");
        }
    }

    #[test]
    fn what_is_little_from_the_beginning_is_told() {
        assert!(Threshold::new(100 * MIB).is_reached(MIB));
        assert!(!Threshold::new(0).is_reached(0));
        assert!(!Threshold::new(u64::MAX).is_reached(u64::MAX));
    }

    #[test]
    fn a_watch_warns_of_what_the_file_system_says_and_ends_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lun0.img");
        std::fs::write(&path, [1]).unwrap();
        let (warned, warnings) = unbounded();
        let warn = move || warned.send(()).unwrap();
        let watch = Watch::start(path, u64::MAX, warn).unwrap();
        let soon = Duration::from_secs(20);
        assert_eq!(warnings.recv_timeout(soon), Ok(()));
        drop(watch);
        // The thread is gone, and `warn` with it.
        let gone = Err(RecvTimeoutError::Disconnected);
        assert_eq!(warnings.recv_timeout(soon), gone);
    }
}
