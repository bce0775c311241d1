//! Commands that were refused with RESERVATION CONFLICT, for those who take note of it.

use std::sync::Arc;

use super::LogicalUnit;
use super::task::Task;
use crate::pr::event::Act;
use crate::scsi::commands;
use crate::scsi::nexus::ItNexus;

/// The most I_T nexuses whose refused commands are kept until somebody takes them. Those of others are only counted.
const KEPT_MAX: usize = 64;

/// Commands of an I_T nexus that were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCommands {
    /// Whose.
    pub nexus: Arc<ItNexus>,
    /// The name of the first of them, as T10 writes it.
    pub operation: &'static str,
    /// What the first of them would have changed, if it is PERSISTENT RESERVE OUT.
    pub attempt: Option<Attempt>,
    /// How many there are.
    pub count: u64,
}

/// A PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What it asks for; `None` if there is no such service action.
    pub act: Option<Act>,
    /// RESERVATION KEY: the issuer's, as it was said.
    pub key: u64,
}

/// Those that nobody has taken yet: one entry for each nexus and kind.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<RefusedCommands>);

impl LogicalUnit {
    /// Commands that were refused since the last call, in no order.
    pub fn refused(&mut self) -> Option<RefusedCommands> {
        self.refusals.0.pop()
    }

    /// Counts a command that is refused, and takes note of it.
    pub(super) fn refuse(&mut self, task: &Task) {
        self.counters.conflicts += 1;
        let Some(nexus) = &self.nexuses[task.nexus.0].nexus else {
            return;
        };
        let opcode = task.cdb[0];
        let attempts = opcode == PERSISTENT_RESERVE_OUT;
        let mut known = self.refusals.0.iter_mut();
        let same =
            known.find(|one| Arc::ptr_eq(&one.nexus, nexus) && one.attempt.is_some() == attempts);
        if let Some(refused) = same {
            refused.count += 1;
        } else if self.refusals.0.len() < KEPT_MAX {
            let row = commands::find(&task.cdb, self.features).ok();
            let row = row.or(commands::of_opcode(opcode).first());
            self.refusals.0.push(RefusedCommands {
                nexus: Arc::clone(nexus),
                operation: row.map_or("a command", |row| row.name),
                attempt: attempts.then(|| attempt(task)),
                count: 1,
            });
        }
    }
}

const PERSISTENT_RESERVE_OUT: u8 = 0x5f;

fn attempt(task: &Task) -> Attempt {
    let mut key = [0; 8];
    task.data.read_at(0, &mut key);
    Attempt {
        act: Act::of_cdb(&task.cdb),
        key: u64::from_be_bytes(key),
    }
}
