//! The sessions that have reserved a unit by RESERVE of SPC-2. When such a session is gone, so is what it has reserved.
//!
//! The kernel announces no logouts, so walks look for them, and more often while something is reserved. A session may
//! be followed by another of the same initiator between two looks, which sends a RESERVE of its own, or goes on
//! under the old one. To end what a live host relies on would let two hosts write, and to end a dead one's late
//! costs time only. So a RESERVE ends only on evidence that is newer than the RESERVE, and certain:
//!
//! - The initiator has no session at all.
//! - The only session that it has is not the one that once was the only one it had, after the RESERVE. Two looks have
//!   to say so: the kernel counts a session a moment after it shows it, and until then the new one seems to be the only
//!   one while it hides the one that it has joined.
//!
//! Where it can't be seen which session there is (Fibre Channel and SRP: only whether there is any; initiators with
//! several sessions at once), one that is replaced between two looks is not noticed. Where no session can be seen
//! (vhost, Xen, loopback), only the removal of the initiator's way to the unit is. RESERVE is served there all the same:
//! what stays reserved too long is ended by a LOGICAL UNIT RESET, which hosts that use RESERVE send to break it, and refusing
//! the command would take the disk from them altogether.
//!
//! Where initiators share a backstore, the nexus tap tells at once which session has ended. It is looked for here only
//! who has reserved before the tap was attached, and has sent nothing since.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::worker::{Order, PortId};
use crate::nexus::{declared, tap};
use crate::scsi::nexus::ItNexus;
use crate::tcmu::configfs::{BackstoreName, Session};
use crate::tcmu::watch::{Again, Walk};

/// For how long a session that does not work any more is looked at again while a RESERVE waits to know.
const ENDING_PATIENCE: Duration = Duration::from_secs(1);

/// How long a session has to be the only one before we believe that it has taken the place of another. Walks come once
/// a second.
const REPLACED_AFTER: Duration = Duration::from_millis(500);

/// What the I_T nexus of a port has reserved.
#[derive(Debug)]
struct Held {
    number: u64,
    nexus: ItNexus,
    /// When we knew. Walks that began before say nothing of the session that has sent the RESERVE.
    since: Instant,
    /// A session that was the only one after that: it has sent the RESERVE, or one that is gone.
    only: Option<u32>,
    /// Another that seems to be the only one now, and since which walk.
    other: Option<(u32, Instant)>,
    /// Since when a RESERVE of another I_T nexus waits for a look.
    doubted: Option<Instant>,
}

impl Held {
    /// Whether a session that a walk has found to be the only one has taken the place of the one that has reserved.
    fn is_replaced_by(&mut self, number: u32, began: Instant) -> bool {
        if *self.only.get_or_insert(number) == number {
            self.other = None;
            return false;
        }
        match self.other {
            Some((other, since)) if other == number => {
                began.duration_since(since) >= REPLACED_AFTER
            }
            _ => {
                self.other = Some((number, began));
                false
            }
        }
    }
}

/// The ports whose I_T nexuses have reserved their units.
#[derive(Debug)]
pub(super) struct Reserves {
    held: BTreeMap<PortId, Held>,
    again: Again,
}

impl Reserves {
    pub(super) fn new(again: Again) -> Reserves {
        Reserves {
            held: BTreeMap::new(),
            again,
        }
    }

    /// The I_T nexus of a port has reserved the unit, or has sent another RESERVE.
    pub(super) fn take_up(&mut self, port: PortId, number: u64, nexus: ItNexus, now: Instant) {
        let doubted = self.held.get(&port).and_then(|held| held.doubted);
        self.held.insert(
            port,
            Held {
                number,
                nexus,
                since: now,
                only: None,
                other: None,
                doubted,
            },
        );
        self.again.hurry();
    }

    /// It has not any more.
    pub(super) fn give_up(&mut self, port: PortId) {
        self.held.remove(&port);
        if self.held.is_empty() {
            self.again.calm_down();
        }
    }

    /// A RESERVE waits to know whether the session is still there. Tells whether a walk will come that shows it.
    pub(super) fn doubt(&mut self, port: PortId) -> bool {
        self.doubt_since(port, Instant::now())
    }

    fn doubt_since(&mut self, port: PortId, now: Instant) -> bool {
        let Some(held) = self.held.get_mut(&port) else {
            return false;
        };
        held.doubted = Some(now);
        self.again.ask();
        true
    }

    /// Takes what a walk has found, and gives what the workers of the ports have to know. `name` tells a port's backstore,
    /// and whether any number of initiators share it.
    pub(super) fn walked<'a>(
        &mut self,
        walk: &Walk,
        name: impl Fn(PortId) -> (&'a BackstoreName, bool),
    ) -> Vec<(PortId, Order)> {
        let ports: Vec<PortId> = self.held.keys().copied().collect();
        let mut orders = Vec::new();
        for port in ports {
            let (name, shared) = name(port);
            let session = match &walk.groups {
                Ok(groups) if shared => tap::session_of(groups, &self.held[&port].nexus),
                Ok(groups) => declared::session(groups, name),
                Err(_) => Session::Unknown,
            };
            for order in self.judge(port, walk.began, session, Instant::now()) {
                if matches!(order, Order::SessionLost(..)) {
                    log::info!(
                        TCMU_PR_BACKSTORE:% = name;
                        "backstore {name}: its initiator's session is gone, and so its RESERVE ends"
                    );
                }
                orders.push((port, order));
            }
        }
        orders
    }

    /// Takes what a walk that began then has found of a port's session.
    fn judge(
        &mut self,
        port: PortId,
        began: Instant,
        session: Session,
        now: Instant,
    ) -> Vec<Order> {
        let Some(held) = self.held.get_mut(&port) else {
            return Vec::new();
        };
        if began < held.since {
            return Vec::new();
        }
        let lost = match session {
            Session::None => true,
            Session::Only(number) => held.is_replaced_by(number, began),
            Session::Ending | Session::Unknown => {
                held.other = None;
                false
            }
        };
        let mut orders = Vec::new();
        let number = held.number;
        let answered = held
            .doubted
            .filter(|&since| lost || (began >= since && held.other.is_none()));
        if let Some(since) = answered {
            if session == Session::Ending && now.duration_since(since) < ENDING_PATIENCE {
                self.again.ask();
            } else {
                held.doubted = None;
                orders.push(Order::Looked);
            }
        }
        if lost {
            orders.insert(0, Order::SessionLost(port, number));
            self.give_up(port);
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::nexus::{Protocol, TargetPort, TransportId};
    use crate::tcmu::watch;

    const PORT: PortId = PortId(3);

    fn nexus() -> ItNexus {
        ItNexus {
            initiator_port: TransportId::Sas(1),
            target_port: TargetPort {
                protocol: Protocol::Sas,
                name: "naa.5".into(),
            },
        }
    }

    struct Bench {
        reserves: Reserves,
        start: Instant,
    }

    impl Bench {
        /// RESERVE number 5 is known from second 1 on.
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let (_, again) = watch::start(folder.path(), Duration::MAX, || false).unwrap();
            let start = Instant::now();
            let mut reserves = Reserves::new(again);
            reserves.take_up(PORT, 5, nexus(), start + Duration::from_secs(1));
            Bench { reserves, start }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        /// What a walk that begins at that second has to say.
        fn judge(&mut self, second: u64, session: Session) -> Vec<String> {
            let at = self.at(second);
            let orders = self.reserves.judge(PORT, at, session, at);
            orders.iter().map(|order| format!("{order:?}")).collect()
        }
    }

    const NOTHING: [&str; 0] = [];
    const LOST: [&str; 1] = ["SessionLost(PortId(3), 5)"];

    #[test]
    fn who_has_no_session_is_lost_once() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(2, Session::None), LOST);
        assert_eq!(bench.judge(3, Session::None), NOTHING);
    }

    #[test]
    fn a_look_that_is_older_than_the_reserve_says_nothing() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(0, Session::None), NOTHING);
        assert_eq!(bench.judge(0, Session::Only(1)), NOTHING);
        assert_eq!(bench.judge(2, Session::Only(2)), NOTHING, "the first");
        assert_eq!(bench.judge(3, Session::Only(2)), NOTHING);
    }

    #[test]
    fn an_only_session_that_has_become_another_is_lost() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(2, Session::Only(7)), NOTHING);
        assert_eq!(bench.judge(3, Session::Unknown), NOTHING);
        assert_eq!(bench.judge(4, Session::Only(7)), NOTHING);
        assert_eq!(bench.judge(5, Session::Only(8)), NOTHING, "seen once");
        assert_eq!(bench.judge(6, Session::Only(8)), LOST);
    }

    #[test]
    fn a_session_that_seems_to_be_the_only_one_for_a_moment_ends_nothing() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(2, Session::Only(7)), NOTHING);
        assert_eq!(bench.judge(3, Session::Only(8)), NOTHING);
        assert_eq!(bench.judge(3, Session::Only(8)), NOTHING, "too soon");
        // It is counted now, and 7 may be hidden behind it.
        assert_eq!(bench.judge(4, Session::Unknown), NOTHING);
        assert_eq!(bench.judge(5, Session::Only(8)), NOTHING, "anew");
        assert_eq!(bench.judge(6, Session::Only(7)), NOTHING);
        assert_eq!(bench.judge(7, Session::Only(8)), NOTHING, "anew");
        assert_eq!(bench.judge(8, Session::Only(8)), LOST);
    }

    #[test]
    fn who_waits_waits_until_it_is_sure_that_a_session_was_replaced() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(2, Session::Only(7)), NOTHING);
        bench.reserves.doubt_since(PORT, bench.at(3));
        assert_eq!(bench.judge(4, Session::Only(8)), NOTHING);
        assert_eq!(bench.judge(5, Session::Only(8)), [LOST[0], "Looked"]);
    }

    #[test]
    fn one_of_several_sessions_may_be_the_one_that_has_reserved() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(2, Session::Unknown), NOTHING);
        // The newer of the two is gone, the older one has reserved.
        assert_eq!(bench.judge(3, Session::Only(7)), NOTHING);
        assert_eq!(bench.judge(4, Session::Ending), NOTHING);
        assert_eq!(bench.judge(5, Session::None), LOST);
    }

    #[test]
    fn another_reserve_may_be_of_another_session() {
        let mut bench = Bench::new();
        assert_eq!(bench.judge(2, Session::Only(7)), NOTHING);
        bench.reserves.take_up(PORT, 6, nexus(), bench.at(4));
        assert_eq!(bench.judge(3, Session::None), NOTHING, "before it");
        assert_eq!(bench.judge(5, Session::Only(8)), NOTHING);
        assert_eq!(bench.judge(6, Session::None), ["SessionLost(PortId(3), 6)"]);
    }

    #[test]
    fn who_waits_is_told_after_a_look_that_began_afterwards() {
        let mut bench = Bench::new();
        assert!(bench.reserves.doubt_since(PORT, bench.at(3)));
        assert_eq!(bench.judge(2, Session::Only(7)), NOTHING);
        assert_eq!(bench.judge(3, Session::Only(7)), ["Looked"]);
        assert_eq!(bench.judge(4, Session::Only(7)), NOTHING, "once");
        bench.reserves.doubt_since(PORT, bench.at(5));
        assert_eq!(bench.judge(6, Session::None), [LOST[0], "Looked"]);
        assert!(!bench.reserves.doubt_since(PORT, bench.at(7)));
    }

    #[test]
    fn who_waits_for_a_session_that_is_ending_waits_a_little_longer() {
        let mut bench = Bench::new();
        bench.reserves.doubt_since(PORT, bench.at(3));
        assert_eq!(bench.judge(3, Session::Ending), NOTHING);
        assert_eq!(bench.judge(4, Session::Ending), ["Looked"]);
    }
}
