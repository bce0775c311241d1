//! What a unit lends to the copies of others: a part of its medium, for a chunk.
//!
//! The unit judges by itself, with what it knows of the same I_T nexus: what the reservations say, what is write protected,
//! whether the part is there. What it lends is in flight like a command of that nexus, so that whoever takes access away
//! waits until it is given back.

use std::ops::Range;
use std::sync::Arc;

use super::task::TaskKey;
use super::{LogicalUnit, NexusId};
use crate::scsi::Access;
use crate::scsi::commands::Media;
use crate::scsi::nexus::ItNexus;
use crate::store::{Durability, Loan};

/// What a copy needs of another unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// For whom.
    pub nexus: Arc<ItNexus>,
    /// What for.
    pub role: Role,
    /// Which bytes of the unit.
    pub part: Range<u64>,
}

/// What a part of a unit is to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is read.
    Source,
    /// It is written.
    Destination,
}

impl Role {
    fn access(self) -> Access {
        match self {
            Role::Source => Access::Read,
            Role::Destination => Access::Write,
        }
    }

    fn media(self) -> Media {
        match self {
            Role::Source => Media::Read,
            Role::Destination => Media::Write,
        }
    }
}

/// What another unit has lent.
#[derive(Clone, Debug)]
pub struct Lent {
    /// Its medium.
    pub loan: Loan,
    /// When what is written there must be on stable storage.
    pub durability: Durability,
}

/// Something that was lent, until [`LogicalUnit::given_back`].
#[derive(Debug)]
pub struct LoanId(TaskKey);

impl LogicalUnit {
    /// Lends a part of the medium, and tells when what is written there must be on stable storage. `None` if it must not,
    /// or can't be now. It never has to be waited for.
    pub fn lend(&mut self, wish: &Wish) -> Option<(LoanId, Durability)> {
        let &id = self.ids.get(&Some(Arc::clone(&wish.nexus)))?;
        self.refresh(id);
        let nexus = &self.nexuses[id.0];
        // One that has not been told yet what has happened here may act on what is not so any more.
        let is_there = nexus.attached > 0 && nexus.attentions.is_empty();
        let access = wish.role.access();
        let ranges = [wish.part.clone(), 0..0];
        let may = is_there
            && !self.fenced
            && !self.is_ending
            && nexus.standing.admits(access)
            && self.may_use(id, wish.role, &wish.part)
            && self.parts.admit(&self.tasks, ranges.clone());
        if !may {
            return None;
        }
        let key = self.tasks.begin(id, access);
        self.tasks
            .set_begun(key, super::parts::Part::shared(ranges));
        Some((LoanId(key), self.durability(id, false)))
    }

    /// Takes back what was lent. What has waited for it comes from [`LogicalUnit::next_step`].
    pub fn given_back(&mut self, LoanId(key): LoanId) {
        self.end_operation(key);
        self.tasks.end(key);
    }

    /// Whether the medium is in a state to be copied from, or to, and has the part.
    pub(super) fn may_use(&self, nexus: NexusId, role: Role, part: &Range<u64>) -> bool {
        let size = self.geometry.byte_length(self.geometry.blocks());
        part.end <= size && self.check_media(nexus, role.media()).is_ok()
    }
}
