//! Commands that take long: told once when it begins, and once when it has ended.

use std::time::{Duration, Instant};

use crate::scsi::commands;

/// A command that takes longer than this is slow, and so is the unit, until for as long no command is.
pub const SLOW: Duration = Duration::from_secs(10);

/// A time in which commands take long.
#[derive(Debug, Default)]
pub(super) struct Spell {
    /// All that were slow and have been answered, since the start.
    commands: u64,
    /// `None` while none is slow.
    now: Option<Now>,
}

/// The one that goes on.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// How many were slow and had been answered before it.
    before: u64,
    longest: Duration,
    /// When the last was seen that was slow.
    seen: Instant,
    told: bool,
}

impl Spell {
    pub(super) fn is_on(&self) -> bool {
        self.now.is_some()
    }

    /// How many commands were slow and have been answered.
    pub(super) fn commands(&self) -> u64 {
        self.commands
    }

    /// Takes note of a command that was slow and is answered.
    pub(super) fn ended(&mut self, now: Instant, took: Duration) {
        self.see(now, took);
        self.commands += 1;
    }

    fn see(&mut self, seen: Instant, took: Duration) -> &mut Now {
        let now = self.now.get_or_insert(Now {
            before: self.commands,
            longest: took,
            seen,
            told: false,
        });
        now.longest = now.longest.max(took);
        now.seen = seen;
        now
    }

    /// Takes note of those that are slow and wait, and for how long they do. Tells what the administrator has to hear.
    pub(super) fn look(
        &mut self,
        now: Instant,
        waiting: impl Iterator<Item = ([u8; 2], Duration)>,
    ) -> Option<String> {
        let (mut count, mut oldest) = (0, None);
        for (cdb, age) in waiting {
            count += 1;
            oldest = oldest.max(Some((age, cdb)));
        }
        if let Some((age, _)) = oldest {
            self.see(now, age);
        }
        let answered = self.commands;
        let spell = self.now.as_mut()?;
        if !std::mem::replace(&mut spell.told, true) {
            return Some(begun(oldest, count, answered - spell.before, spell.longest));
        }
        if count > 0 || now.saturating_duration_since(spell.seen) < SLOW {
            return None;
        }
        let (answered, longest) = (answered - spell.before, spell.longest);
        self.now = None;
        Some(format!(
            "slow I/O has ended: {answered} commands took longer than {} s, the longest {} s",
            SLOW.as_secs(),
            longest.as_secs()
        ))
    }
}

fn begun(
    oldest: Option<(Duration, [u8; 2])>,
    waiting: u64,
    answered: u64,
    longest: Duration,
) -> String {
    let limit = SLOW.as_secs();
    match oldest {
        Some((age, cdb)) => format!(
            "slow I/O: {waiting} commands have waited longer than {limit} s for their answer, the oldest, {}, for {} s: is \
             the backing store slow?",
            name(cdb),
            age.as_secs()
        ),
        None => format!(
            "slow I/O: {answered} commands took longer than {limit} s, the longest {} s: is the backing store slow?",
            longest.as_secs()
        ),
    }
}

/// What a command is called whose CDB begins so.
fn name(cdb: [u8; 2]) -> String {
    let mut rows = commands::of_opcode(cdb[0]).iter();
    let row = rows.find(|row| !row.has_service_action || (row.usage[1] ^ cdb[1]) & 0x1f == 0);
    match row {
        Some(row) => row.name.to_owned(),
        None => format!("operation code {:#04x}", cdb[0]),
    }
}
