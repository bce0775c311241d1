//! The files of a unit's history: `NAME.history`, and before it `NAME.history.1`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Entry;

/// How large a file becomes. Then it takes the place of the older one, and another is begun. So there is never much more
/// than twice that to be read: what is appended at once is far shorter, since an entry names no more than 256 registrations.
pub const SIZE_MAX: u64 = 1 << 20;

/// As much is read of the end of a file: all of it, unless somebody else has made it longer.
const READ_MAX: u64 = 2 * SIZE_MAX;

/// Where entries are appended.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    size_max: u64,
    /// `None` until something is appended, and after it could not be.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl Ledger {
    /// The history in the file of that name, which need not exist, and becomes about that large.
    pub fn new(path: PathBuf, size_max: u64) -> Ledger {
        Ledger {
            path,
            size_max,
            open: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends entries: all of them or none. What is there of them when this returns outlives the daemon.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let text: String = entries.iter().map(Entry::line).collect();
        let appended = self.append_text(&text);
        if appended.is_err() {
            // The next time it is looked at afresh: it may have been moved away, or the disk mounted anew.
            self.open = None;
        }
        appended
    }

    fn append_text(&mut self, text: &str) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.path)?,
        };
        if open.size > 0 && open.size + text.len() as u64 > self.size_max {
            fs::rename(&self.path, older(&self.path))?;
            open = Open::new(&self.path)?;
        }
        if let Err(error) = open.file.write_all(text.as_bytes()) {
            // What there is of it is no entry.
            open.file.set_len(open.size)?;
            return Err(error);
        }
        open.size += text.len() as u64;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    /// Opens the file, makes it if need be, and mends its end: the last line may have been cut short.
    fn new(path: &Path) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path)?;
        let (from, text) = end_of(&mut file)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n');
        let size = from + whole.map_or(0, |last| last + 1) as u64;
        if size < from + text.len() as u64 {
            file.set_len(size)?;
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Open { file, size })
    }
}

/// Where the end of a file begins, and what it is.
fn end_of(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let from = file.metadata()?.len().saturating_sub(READ_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(READ_MAX).read_to_end(&mut text)?;
    Ok((from, text))
}

/// What stands in a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The entries, the newest last.
    pub entries: Vec<Entry>,
    /// How many lines are no entries.
    pub unreadable: usize,
}

/// Reads a history, the older file first. One that does not exist is empty; of one that is longer than a history becomes,
/// the end counts.
pub fn read(path: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for path in [&older(path), path] {
        let text = match File::open(path).and_then(|mut file| end_of(&mut file)) {
            Ok((_, text)) => text,
            Err(missing) if missing.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let lines = text.split(|&byte| byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(entry) => found.entries.push(entry),
                Err(_) => found.unreadable += 1,
            }
        }
    }
    Ok(found)
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::history::{Kind, Other, State};

    fn entry(number: u32) -> Entry {
        let state = State {
            generation: number,
            ..State::default()
        };
        let time = Timestamp::from_second(1_796_036_400).unwrap();
        Entry::new(time, Kind::Other(Other::Started), state)
    }

    fn ledger(size_max: u64) -> (TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("6001405a.history");
        (folder, Ledger::new(path, size_max))
    }

    fn numbers(ledger: &Ledger) -> Vec<u32> {
        let found = read(ledger.path()).unwrap();
        assert_eq!(found.unreadable, 0);
        let entries = found.entries.iter();
        entries.map(|entry| entry.state.generation).collect()
    }

    #[test]
    fn what_was_appended_is_read() {
        let (_folder, mut ledger) = ledger(SIZE_MAX);
        assert!(numbers(&ledger).is_empty());
        ledger.append(&[entry(1)]).unwrap();
        ledger.append(&[entry(2), entry(3)]).unwrap();
        assert_eq!(numbers(&ledger), [1, 2, 3]);
        let again = Ledger::new(ledger.path().to_owned(), SIZE_MAX);
        assert_eq!(numbers(&again), [1, 2, 3]);
        let mode = fs::metadata(ledger.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(ledger.path()).unwrap().lines().next(),
            Some(
                "{\"time\":\"2026-11-30T11:00:00.000000Z\",\"kind\":\"started\",\"state\":{\"generation\":1,\
                 \"registered\":0,\"aptpl\":false,\"reservation\":null,\"reserve\":null}}"
            )
        );
    }

    #[test]
    fn a_full_file_becomes_the_older_one() {
        let lines = |number: u64| number * entry(1).line().len() as u64;
        let (folder, mut ledger) = ledger(lines(3));
        for (number, expected) in [
            (3, vec![1, 2, 3]),
            (4, vec![1, 2, 3, 4]),
            (6, (1..=6).collect()),
            (7, (4..=7).collect()),
        ] {
            let next = numbers(&ledger).last().map_or(1, |last| last + 1);
            (next..=number).for_each(|number| ledger.append(&[entry(number)]).unwrap());
            assert_eq!(numbers(&ledger), expected);
        }
        let files = fs::read_dir(folder.path()).unwrap();
        assert_eq!(files.count(), 2);
    }

    #[test]
    fn a_line_that_was_cut_short_is_skipped_and_then_taken_away() {
        for torn in [&b"{\"time\":\"2026"[..], b"\0\0\0\0", &[0xff; 9]] {
            let (_folder, mut ledger) = ledger(SIZE_MAX);
            ledger.append(&[entry(1)]).unwrap();
            let mut text = fs::read(ledger.path()).unwrap();
            text.extend(torn);
            fs::write(ledger.path(), text).unwrap();
            let found = read(ledger.path()).unwrap();
            assert_eq!((found.entries.len(), found.unreadable), (1, 1));
            let mut next = Ledger::new(ledger.path().to_owned(), SIZE_MAX);
            next.append(&[entry(2)]).unwrap();
            assert_eq!(numbers(&next), [1, 2]);
        }
    }

    #[test]
    fn of_a_file_that_somebody_has_made_longer_the_end_is_read_and_it_is_gone_on_with() {
        let (folder, mut ledger) = ledger(SIZE_MAX);
        ledger.append(&[entry(1)]).unwrap();
        let huge = OpenOptions::new().write(true).open(ledger.path()).unwrap();
        // More than there is memory.
        huge.set_len(1 << 40).unwrap();
        let mut next = Ledger::new(ledger.path().to_owned(), SIZE_MAX);
        let found = read(next.path()).unwrap();
        assert_eq!((found.entries.len(), found.unreadable), (0, 1));
        next.append(&[entry(2)]).unwrap();
        let found = read(next.path()).unwrap();
        assert_eq!((found.entries, found.unreadable), (vec![entry(2)], 1));
        // The next one that is full takes its place.
        let full = SIZE_MAX / entry(3).line().len() as u64;
        (0..full).for_each(|_| next.append(&[entry(3)]).unwrap());
        let older = folder.path().join("6001405a.history.1");
        assert!(fs::metadata(older).unwrap().len() <= SIZE_MAX);
    }

    #[test]
    fn what_cannot_be_appended_is_an_error_and_the_next_can() {
        let (folder, mut ledger) = ledger(SIZE_MAX);
        fs::create_dir(ledger.path()).unwrap();
        assert!(ledger.append(&[entry(1)]).is_err());
        fs::remove_dir(ledger.path()).unwrap();
        ledger.append(&[entry(2)]).unwrap();
        assert_eq!(numbers(&ledger), [2]);
        drop(folder);
        assert!(ledger.append(&[entry(3)]).is_ok(), "its file is still open");
    }
}
