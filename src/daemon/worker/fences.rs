//! What the log says of answers that wait for commands in flight of initiators that have lost access.

use super::Worker;
use crate::daemon::recorder::Record;
use crate::lu;
use crate::lu::task::Pending;
use crate::store::Store;

/// After how many ticks it is worth a line in the log that an answer waits for commands in flight.
const TICKS_TO_LOG: u32 = 5;

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    /// Lets one tick of time pass for what waits in the unit.
    pub fn tick(&mut self) {
        let unit = &mut self.parts.unit;
        let before = unit.waiting();
        unit.tick();
        let given_up = before.replies.saturating_sub(unit.waiting().replies);
        let serial = unit.serial();
        if given_up > 0 {
            log::error!(
                TCMU_PR_UNIT = serial;
                "unit {serial}: commands in flight have not ended within {} s: {given_up} answers that waited for them are given \
                 up; the initiators that have lost access can still write what is in flight",
                lu::FENCE_PATIENCE
            );
        } else if before.ticks + 1 == TICKS_TO_LOG {
            log::warn!(
                TCMU_PR_UNIT = serial;
                "unit {serial}: {} answers have waited {TICKS_TO_LOG} s for commands in flight of initiators that have lost \
                 access: is the backing store slow?",
                before.replies
            );
        }
    }
}
