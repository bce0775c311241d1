//! RESERVE of SPC-2 and the session that has sent it: when the I_T nexus is lost, the unit is free again.
//!
//! The unit does not see sessions; whoever does tells it of those that are gone, and may be late. So each RESERVE
//! has a number, and what is told of an earlier one's session does not end what a later session has been promised.
//! And where somebody looks for sessions, a RESERVE that conflicts with another's waits for a look: a host that
//! is gone refuses nobody.

use super::change::Awaited;
use super::task::Task;
use super::{LogicalUnit, Step};
use crate::scsi::cdb::Command;
use crate::scsi::nexus::ItNexus;

/// For how many ticks a RESERVE waits for a look. Then the holder counts as there.
pub const LOOK_PATIENCE: u32 = 4;

/// The RESERVEs that have come, and those that wait for a look.
#[derive(Debug, Default)]
pub(super) struct Reserves {
    /// The number of the last one that was granted.
    pub(super) number: u64,
    /// Whether somebody looks for sessions.
    looked_for: bool,
    pub(super) in_doubt: Vec<Task>,
    /// For how long they have waited.
    ticks: u32,
}

impl LogicalUnit {
    /// Who has reserved the unit by RESERVE, and the number of the last RESERVE that it was told is good.
    pub fn reserve(&self) -> Option<(&ItNexus, u64)> {
        let holder = self.reservations.spc2()?;
        Some((holder, self.reserves.number))
    }

    /// From now on somebody looks for sessions when [`LogicalUnit::is_in_doubt`] says so, and then calls
    /// [`LogicalUnit::looked`].
    pub fn expect_looks(&mut self) {
        self.reserves.looked_for = true;
    }

    /// Whether a RESERVE waits for a look whether the session is still there that has reserved the unit.
    pub fn is_in_doubt(&self) -> bool {
        !self.reserves.in_doubt.is_empty()
    }

    /// The look is done, and [`LogicalUnit::session_lost`] has said what it has found, if anything. What has come
    /// while it was under way is decided too: it can be asked again.
    pub fn looked(&mut self) {
        self.reserves.ticks = 0;
        for mut task in std::mem::take(&mut self.reserves.in_doubt) {
            task.looked = true;
            self.awaited.push_back(Awaited::Command(task));
        }
    }

    /// All sessions are gone that can have sent the RESERVE of that number. It ends, unless its I_T nexus has sent
    /// another since.
    pub fn session_lost(&mut self, nexus: &ItNexus, number: u64) {
        self.awaited
            .push_back(Awaited::SessionLoss(nexus.clone(), number));
    }

    /// Whether a command that conflicts is to wait for a look.
    pub(super) fn is_doubtful(&self, task: &Task, command: &Command) -> bool {
        let reserve = matches!(command, Command::Reserve) && self.reservations.spc2().is_some();
        reserve && self.reserves.looked_for && !task.looked
    }

    pub(super) fn doubt(&mut self, task: Task) -> Step {
        self.reserves.in_doubt.push(task);
        Step::Held
    }

    /// Lets a tick pass for what waits for a look.
    pub(super) fn doubt_for_a_tick(&mut self) {
        if !self.is_in_doubt() {
            return;
        }
        self.reserves.ticks += 1;
        if self.reserves.ticks >= LOOK_PATIENCE {
            self.looked();
        }
    }
}
