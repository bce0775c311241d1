//! The RESERVE that a unit is under, whose session somebody has to watch.

use std::time::Instant;

use super::{Notice, Whose, Worker};
use crate::daemon::recorder::Record;
use crate::lu::task::Pending;
use crate::store::Store;

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    /// Tells the main thread whose session is to be watched, and asks it to look for that if somebody waits. Tells
    /// whether there is more to do at once.
    pub(super) fn follow_reserve(&mut self) -> bool {
        let reserve = self.parts.unit.reserve().and_then(|(holder, number)| {
            let mut ports = self.ports.iter();
            // A session that the tap has not seen since it was attached is to be looked for like one of a nexus that has a
            // port for itself.
            let (&id, _) = ports.find(|(_, port)| match port.whose {
                Whose::Shared => !self.sessions.knows(holder),
                Whose::Of(_) | Whose::Unknown => port.served.as_ref() == Some(holder),
            })?;
            Some((id, number))
        });
        // The main thread may be gone while we stop.
        let tell = |notice| drop(self.parts.notices.send(notice));
        let before = std::mem::replace(&mut self.reserve, reserve);
        if before != reserve {
            if let Some((id, _)) = before {
                if reserve.is_none_or(|(now, _)| now != id) {
                    tell(Notice::Released(id));
                }
            }
            let holder = self.parts.unit.reserve().map(|(holder, _)| holder.clone());
            if let (Some((id, number)), Some(holder)) = (reserve, holder) {
                tell(Notice::Reserved(id, number, holder));
            }
        }
        if !self.parts.unit.is_in_doubt() {
            self.looking = false;
            self.doubted = None;
        } else if let Some((id, _)) = reserve {
            if !std::mem::replace(&mut self.looking, true) {
                tell(Notice::Doubted(id));
            }
        } else {
            return self.doubt_what_the_tap_sees();
        }
        false
    }

    /// A RESERVE conflicts with another that no other port than shared ones can have brought. Tells whether there is more to
    /// do at once.
    fn doubt_what_the_tap_sees(&mut self) -> bool {
        self.sweep();
        let since = *self.doubted.get_or_insert_with(Instant::now);
        let holder = self.parts.unit.reserve().map(|(holder, _)| holder);
        let live = holder.is_some_and(|holder| self.sessions.knows(holder));
        if live && since.elapsed() < self.parts.logout_patience {
            return false;
        }
        // It stays, or there is nobody to look for any more, or nobody knows whom.
        self.doubted = None;
        self.parts.unit.looked();
        true
    }
}
