//! Unit attention conditions of one I_T nexus (SAM-5, unit attention conditions; SPC-4 r37, UA_INTLCK_CTRL 00b).

use std::collections::VecDeque;

use crate::scsi::sense::Sense;

/// As many conditions as can be pending; there are not that many kinds. When more come, the oldest stay.
const PENDING_MAX: usize = 16;

/// The pending unit attention conditions of one I_T nexus: first in, first out, each kind once. Those of the
/// reset group (29h) stand before the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attentions {
    pending: VecDeque<Sense>,
}

impl Attentions {
    /// Establishes a condition. One that is pending already is not established twice.
    pub(super) fn establish(&mut self, condition: Sense) {
        if self.pending.contains(&condition) || self.pending.len() == PENDING_MAX {
            return;
        }
        let place = if is_reset(&condition) {
            self.pending
                .iter()
                .take_while(|pending| is_reset(pending))
                .count()
        } else {
            self.pending.len()
        };
        self.pending.insert(place, condition);
    }

    /// Takes the first condition if it is of the reset group, which goes before RESERVATION CONFLICT.
    pub(super) fn take_reset(&mut self) -> Option<Sense> {
        if is_reset(self.pending.front()?) {
            self.pending.pop_front()
        } else {
            None
        }
    }

    /// Takes the first condition.
    pub(super) fn take(&mut self) -> Option<Sense> {
        self.pending.pop_front()
    }

    /// The conditions, in the order in which they are reported.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sense> {
        self.pending.iter()
    }

    /// Whether nothing is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

/// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED and its kin.
fn is_reset(condition: &Sense) -> bool {
    condition.additional().0 == 0x29
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::sense::Field;

    #[test]
    fn conditions_come_back_in_the_order_in_which_they_were_established() {
        let mut attentions = Attentions::default();
        attentions.establish(Sense::reservations_released());
        attentions.establish(Sense::registrations_preempted());
        attentions.establish(Sense::reservations_released());
        assert_eq!(attentions.take(), Some(Sense::reservations_released()));
        assert_eq!(attentions.take(), Some(Sense::registrations_preempted()));
        assert_eq!(attentions.take(), None, "each kind is pending once");
    }

    #[test]
    fn the_reset_group_stands_before_the_others() {
        let mut attentions = Attentions::default();
        attentions.establish(Sense::registrations_preempted());
        attentions.establish(Sense::power_on_occurred());
        attentions.establish(Sense::bus_device_reset_function_occurred());
        assert_eq!(attentions.take_reset(), Some(Sense::power_on_occurred()));
        assert_eq!(
            attentions.take_reset(),
            Some(Sense::bus_device_reset_function_occurred())
        );
        assert_eq!(attentions.take_reset(), None);
        assert_eq!(attentions.take(), Some(Sense::registrations_preempted()));
    }

    #[test]
    fn conditions_beyond_sixteen_are_dropped_and_the_oldest_stay() {
        // There are not that many kinds; any sense data will do.
        let condition = |number| Sense::invalid_field_in_cdb(Field::cdb(number));
        let mut attentions = Attentions::default();
        (0..20).for_each(|number| attentions.establish(condition(number)));
        for number in 0..16 {
            assert_eq!(attentions.take(), Some(condition(number)));
        }
        assert_eq!(attentions.take(), None);
    }
}
