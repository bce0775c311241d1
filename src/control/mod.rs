//! What an operator touches: all that can be asked of a running daemon.
//!
//! A question is an [`Order`], sent to the daemon's main loop with a channel for the answer. The bus knows
//! no more than this, and the daemon nothing of the bus.

mod caller;
pub mod dbus;
#[cfg(test)]
pub(crate) mod fields;
pub mod file;
pub mod journal;
pub mod metrics;
pub mod performance;
pub mod systemd;

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use performance::PerformanceStatus;
use serde::{Deserialize, Serialize};

use crate::history::Found;

/// How long the daemon may take to answer. targetcli gives up after 25 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change of a logical unit may take: to be stored, and until what its losers have in flight has ended.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the daemon is asked. It answers on `reply`; whoever asked may have gone.
#[derive(Debug)]
pub enum Order {
    /// Could a backstore with this config string be made?
    CheckConfig {
        /// The whole config string, subtype included: `pr//srv/lun0.img;nexus=node-a`.
        config: String,
        /// Yes, or why not: a sentence for the administrator.
        reply: Sender<Result<(), String>>,
    },
    /// How are things?
    Status {
        /// All of it.
        reply: Sender<Status>,
    },
    /// What was registered and reserved by whom when?
    History {
        /// The unit serial number.
        serial: String,
        /// What stands in its history, or why that can't be read.
        reply: Sender<Result<Found, String>>,
    },
    /// Change a logical unit.
    Administer {
        /// The unit serial number.
        serial: String,
        /// What to do.
        action: Administration,
        /// Done, or why not.
        reply: Sender<Result<(), Undone>>,
    },
}

/// What the administrator can do to a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administration {
    /// Remove the reservation and every registration. Where their record can't be read, go on without it.
    Clear,
    /// Remove every registration with this key, and a reservation that has no holder then.
    Preempt {
        /// The reservation key.
        key: u64,
    },
    /// Let writes be served again that are refused since a flush has failed.
    ClearFlushFailure,
    /// Give it another size.
    Resize {
        /// The size in bytes; `None` for as many as its backing object has now.
        size_bytes: Option<u64>,
        /// Whether it may become smaller.
        shrink: bool,
    },
}

/// Why a change is not done, or can't be relied on: a sentence for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undone {
    /// Nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// It is done, but commands of those who lost access by it are still in flight.
    #[error("{0}")]
    NotOver(String),
}

/// The daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its main loop has ended.
    #[error("tcmu-pr is stopping")]
    Stopping,
    /// Its main loop is stuck.
    #[error("tcmu-pr did not answer within {} seconds; see `journalctl -u tcmu-pr`", .0.as_secs())]
    NoAnswer(Duration),
}

/// Where orders are given. Every clone reaches the same daemon.
#[derive(Clone, Debug)]
pub struct Orders(Sender<Order>);

impl Orders {
    /// A place to give orders, and the daemon's end of it.
    pub fn new() -> (Orders, Receiver<Order>) {
        let (sender, receiver) = unbounded();
        (Orders(sender), receiver)
    }

    /// Asks whether a backstore with this config string, subtype included, could be made.
    pub fn check_config(&self, config: String) -> Result<Result<(), String>, Error> {
        self.ask(ANSWER_TIMEOUT, |reply| Order::CheckConfig { config, reply })
    }

    /// Asks how things are.
    pub fn status(&self) -> Result<Status, Error> {
        self.status_within(ANSWER_TIMEOUT)
    }

    /// Asks how things are, and waits no longer than that for the answer.
    pub fn status_within(&self, patience: Duration) -> Result<Status, Error> {
        self.ask(patience, |reply| Order::Status { reply })
    }

    /// Asks for the history of the logical unit with this serial number.
    pub fn history(&self, serial: String) -> Result<Result<Found, String>, Error> {
        self.ask(ANSWER_TIMEOUT, |reply| Order::History { serial, reply })
    }

    /// Has the logical unit with this serial number changed.
    pub fn administer(
        &self,
        serial: String,
        action: Administration,
    ) -> Result<Result<(), Undone>, Error> {
        self.ask(CHANGE_TIMEOUT, |reply| Order::Administer {
            serial,
            action,
            reply,
        })
    }

    fn ask<T>(
        &self,
        patience: Duration,
        order: impl FnOnce(Sender<T>) -> Order,
    ) -> Result<T, Error> {
        let (reply, answer) = bounded(1);
        self.0.send(order(reply)).map_err(|_| Error::Stopping)?;
        answer.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::NoAnswer(patience),
            RecvTimeoutError::Disconnected => Error::Stopping,
        })
    }
}

/// How things are: `tcmu-pr status --json` prints this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// When the daemon was started, in seconds since 1970.
    pub started_unix_s: u64,
    /// Whether initiators that share a backstore can be told apart.
    pub tap: TapStatus,
    /// The logical units, sorted by path.
    pub units: Vec<UnitStatus>,
    /// Backstores of ours that belong to no logical unit, because they were refused or have failed.
    pub refused: Vec<RefusedStatus>,
    /// What is wrong with the node as a whole, and what to do: a sentence for each.
    pub warnings: Vec<String>,
}

/// Whether the kernel tells who sends a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TapStatus {
    /// It does.
    Attached,
    /// It does not: only backstores with a nexus label serve.
    Missing {
        /// Why, and what to do.
        reason: String,
    },
}

impl Default for TapStatus {
    fn default() -> TapStatus {
        TapStatus::Missing {
            reason: String::new(),
        }
    }
}

/// A logical unit: one backing object, one set of reservations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// The backing file.
    pub path: String,
    /// The unit serial number (VPD page 80h).
    pub serial: String,
    /// Capacity.
    pub size_bytes: u64,
    /// Logical block length.
    pub block_size_bytes: u32,
    /// The backstores through which it is reached.
    pub ports: Vec<PortStatus>,
    /// The I_T nexuses that have sent commands through shared backstores and are logged in, sorted.
    pub sessions: Vec<SessionStatus>,
    /// Who has reserved what.
    pub reservations: ReservationStatus,
    /// What does I/O that has to wait: `io_uring`, or `threads` and why.
    pub engine: String,
    /// Whether writes may wait in the cache until a flush (WCE).
    pub write_cache: bool,
    /// Whether an initiator has write protected it (SWP).
    pub software_write_protect: bool,
    /// Whether writes are refused since a flush has failed.
    pub flush_failed: bool,
    /// Since the daemon started.
    pub counters: Counters,
    /// Commands whose data is on its way from or to the backing object.
    pub in_flight: u64,
    /// Answers that wait for such commands of initiators that have lost access.
    pub waiting: WaitingStatus,
    /// How it performs; none if its thread did not answer, which leaves out much of the rest.
    pub performance: Option<PerformanceStatus>,
}

/// Answers that wait until the losers' commands in flight have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// How many there are.
    pub answers: u64,
    /// How long the oldest has waited.
    pub seconds: u64,
}

/// A session with a shared backstore: one I_T nexus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The initiator: its name, or its port's.
    pub initiator: String,
    /// The initiator session identifier: `0x` and 12 hexadecimal digits. iSCSI only.
    pub isid: Option<String>,
    /// The target port.
    pub target: String,
    /// Whether the initiator may not write.
    pub read_only: bool,
}

/// A backstore: a way to a logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its place in the kernel's configuration: `user_0/lun0-a`.
    pub backstore: String,
    /// Its UIO device: `uio0`.
    pub uio: String,
    /// The nexus label of its config string; none if any number of initiators share it.
    pub label: Option<String>,
    /// Whether it serves, and whom.
    pub link: LinkStatus,
}

/// Whether a backstore serves, and whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkStatus {
    /// It serves all initiators that reach it.
    Shared {
        /// The target ports through which they do.
        targets: Vec<String>,
    },
    /// It serves one I_T nexus.
    Serving {
        /// The initiator port, as TransportIDs are shown.
        initiator: String,
        /// The target port.
        target: String,
        /// Whether the initiator may not write.
        read_only: bool,
    },
    /// It answers every command with BUSY.
    Waiting {
        /// What the administrator has to change.
        reason: String,
    },
}

/// A backstore that is not served at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// Its place in the kernel's configuration: `user_0/lun0-a`.
    pub backstore: String,
    /// What the administrator has to change.
    pub reason: String,
}

/// The persistent reservations of a logical unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationStatus {
    /// The record can't be read, and why: who is registered is not known, and nobody is let in.
    pub unreadable: Option<String>,
    /// PRGENERATION.
    pub generation: u32,
    /// Whether all this outlives a loss of power (APTPL).
    pub aptpl: bool,
    /// Whether every registration asks for that, whatever the initiator says.
    pub force_aptpl: bool,
    /// The reservation, if there is one.
    pub reservation: Option<HeldStatus>,
    /// The I_T nexus that holds the unit by RESERVE(6) or RESERVE(10).
    pub reserve: Option<String>,
    /// All registered I_T nexuses.
    pub registrants: Vec<RegistrantStatus>,
}

/// A persistent reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Its type in words: `Write Exclusive, Registrants Only`.
    pub kind: String,
    /// The I_T nexus that holds it. `None` when all registrants do.
    pub holder: Option<String>,
}

/// A registered I_T nexus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrantStatus {
    /// The initiator: its name, or its port's.
    pub initiator: String,
    /// The initiator session identifier of its port, where that is known: `0x` and 12 hexadecimal digits. iSCSI only.
    pub isid: Option<String>,
    /// The target port.
    pub target: String,
    /// The relative target port identifier of that.
    pub relative_target_port: Option<u16>,
    /// The reservation key: `0x` and 16 hexadecimal digits, since JSON's numbers are too short for it.
    pub key: String,
    /// Whether it holds the reservation, alone or as one of all registrants.
    pub holder: bool,
}

/// What a logical unit has done since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Commands begun, the ones below included.
    pub commands: u64,
    /// READ commands.
    pub reads: u64,
    /// Commands that write data they bring: WRITE of every kind, WRITE SAME, ORWRITE, and COMPARE AND WRITE.
    pub writes: u64,
    /// Commands answered with RESERVATION CONFLICT.
    pub conflicts: u64,
    /// Commands answered with BUSY because their I_T nexus was not known.
    pub unknown_nexus: u64,
    /// Those of them that the nexus tap has not noted, or not whose they are.
    pub not_noted: u64,
    /// Commands that were noted only after they could be seen, and so had to be waited for.
    pub noted_late: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two nodes, one of which holds a reservation; the third is not exported yet.
    pub(crate) fn example() -> Status {
        let port = |name: &str, link| PortStatus {
            backstore: format!("user_0/lun0-{name}"),
            uio: "uio0".into(),
            label: Some(format!("node-{name}")),
            link,
        };
        let serving = |name: &str| LinkStatus::Serving {
            initiator: format!("iqn.2026-11.example:{name}"),
            target: "iqn.2026-11.example:t,t,0x0001".into(),
            read_only: name == "b",
        };
        let waiting = LinkStatus::Waiting {
            reason: "it is not exported".into(),
        };
        Status {
            version: "0.1.0".into(),
            started_unix_s: 1_800_000_000,
            tap: TapStatus::Attached,
            units: vec![UnitStatus {
                path: "/srv/lun0.img".into(),
                serial: "6001405a".into(),
                size_bytes: 10 << 30,
                block_size_bytes: 512,
                ports: vec![
                    port("a", serving("a")),
                    port("b", serving("b")),
                    port("c", waiting),
                ],
                sessions: Vec::new(),
                reservations: ReservationStatus {
                    unreadable: None,
                    generation: 3,
                    aptpl: true,
                    force_aptpl: false,
                    reservation: Some(HeldStatus {
                        kind: "Write Exclusive, Registrants Only".into(),
                        holder: Some(
                            "iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001".into(),
                        ),
                    }),
                    reserve: None,
                    registrants: vec![RegistrantStatus {
                        initiator: "iqn.2026-11.example:a".into(),
                        isid: Some("0x00023d000001".into()),
                        target: "iqn.2026-11.example:t,t,0x0001".into(),
                        relative_target_port: Some(1),
                        key: "0x00000000000000a1".into(),
                        holder: true,
                    }],
                },
                engine: "io_uring".into(),
                write_cache: true,
                software_write_protect: false,
                flush_failed: false,
                counters: Counters {
                    commands: 1234,
                    reads: 1000,
                    writes: 200,
                    conflicts: 4,
                    unknown_nexus: 1,
                    not_noted: 0,
                    noted_late: 0,
                },
                in_flight: 32,
                waiting: WaitingStatus::default(),
                performance: Some(performance::tests::example()),
            }],
            refused: vec![RefusedStatus {
                backstore: "user_7/odd".into(),
                reason: "the config string has no nexus label".into(),
            }],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn an_order_is_answered_by_the_daemon() {
        let (orders, daemon) = Orders::new();
        let answering = std::thread::spawn(move || {
            for order in daemon.iter().take(3) {
                match order {
                    Order::CheckConfig { config, reply } => reply.send(Err(config)).is_ok(),
                    Order::Status { reply } => reply.send(example()).is_ok(),
                    Order::History { reply, .. } => reply.send(Ok(Found::default())).is_ok(),
                    Order::Administer {
                        serial,
                        action,
                        reply,
                    } => reply
                        .send(Err(Undone::Refused(format!("{serial} {action:?}"))))
                        .is_ok(),
                };
            }
        });
        let checked = orders
            .check_config("pr//x".into())
            .expect("the daemon is there");
        assert_eq!(checked, Err("pr//x".to_owned()));
        assert_eq!(orders.status().expect("the daemon is there"), example());
        let done = orders.administer("6001405a".into(), Administration::Clear);
        assert_eq!(
            done.expect("the daemon is there"),
            Err(Undone::Refused("6001405a Clear".to_owned()))
        );
        answering.join().expect("it does not panic");
        assert!(matches!(orders.status(), Err(Error::Stopping)));
    }

    #[test]
    fn a_status_survives_json() {
        let text = serde_json::to_string(&example()).expect("it is plain data");
        assert_eq!(
            serde_json::from_str::<Status>(&text).expect("it was written so"),
            example()
        );
        assert!(
            text.contains(r#""link":{"state":"waiting","reason":"#),
            "{text}"
        );
    }
}
