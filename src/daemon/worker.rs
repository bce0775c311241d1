//! The thread that owns a logical unit: its reservations, its commands in flight, its store, and every TCMU
//! device that is a port of it.
//!
//! Each turn of the loop takes what there is, in this order: orders from the main thread, entries of every ring,
//! operations that the store and the recorder have done. Then it publishes all answers, with one kick per ring.
//! Nothing in it blocks.

mod backlog;
mod copies;
mod fences;
pub mod measure;
mod polling;
mod refusals;
mod reserve;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::recorder::Record;
use super::tapped::{Sessions, Unknown};
use crate::control::Undone;
use crate::lu::task::{Answer, NexusId, Pending, Tag, Task, Ticket};
use crate::lu::{self, LogicalUnit, Step};
use crate::nexus::tap::{DeviceNotes, Missing};
use crate::scsi::nexus::ItNexus;
use crate::store::Store;
use crate::store::medium::Medium;
use crate::sys::wake::Waker;
use crate::tcmu::ring::{Command, CommandId, Completion, Entry, Function, Interrupted};
use crate::tcmu::{Device, KICK};
pub use backlog::Rest;
use backlog::{Backlog, Taken};
use copies::Copies;
pub use copies::{Peer, Peers, Question};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use measure::{InFlight, Measure};
pub use polling::Poll;
use polling::Polling;
use refusals::{Refusals, refusals};
pub use words::{Identity, Notice, Order, PortId, Report};

/// How many entries are taken from one ring before the others get their turn.
const ENTRIES_PER_TURN: usize = 256;

/// How much data their commands may move, since it may be moved before anything is answered. The command with which
/// it comes to more than that is the last.
const BYTES_PER_TURN: u64 = 1 << 20;

/// How often time passes for what waits in the unit.
const TICK: Duration = Duration::from_secs(1);

/// For how long a RESERVE that conflicts with that of a session waits for the end of the session. The kernel answers a
/// LOGOUT before it ends the session, and a host that has learned of the one may act on it before the other.
pub const LOGOUT_PATIENCE: Duration = Duration::from_millis(250);

/// What the waker is called among the ports that the thread waits for.
const WAKER: u64 = u32::MAX as u64;

/// The main thread's end of a worker.
#[derive(Debug)]
pub struct Handle {
    orders: Orders,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    thread: JoinHandle<Vec<Rest>>,
}

/// Where orders for a worker go.
#[derive(Clone, Debug)]
pub struct Orders {
    orders: Sender<Order>,
    waker: Waker,
}

impl Orders {
    /// Gives an order. A worker whose thread has ended takes none.
    pub fn give(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            self.waker.wake();
        }
    }
}

impl Handle {
    /// Gives an order. A worker whose thread has ended takes none.
    pub fn give(&self, order: Order) {
        self.orders.give(order);
    }

    /// For others who have orders to give.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Lets the worker answer what it has taken and end. Gives up on commands that hang in the backing object for
    /// longer than `patience`; tells whether it ended.
    pub fn stop(self, patience: Duration) -> bool {
        self.end(patience).is_some()
    }

    /// As [`Handle::stop`], of a unit that the administrator has removed: nothing of it is stored any more, however late the
    /// worker ends.
    pub fn power_off(self, patience: Duration) -> bool {
        self.give(Order::PowerOff);
        self.stop(patience)
    }

    /// As [`Handle::stop`]; if it ended, gives the rings with which another daemon can go on.
    pub fn end(self, patience: Duration) -> Option<Vec<Rest>> {
        self.give(Order::Stop);
        let ended = self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected);
        ended.then(|| {
            self.thread.join().unwrap_or_else(|_| {
                log::error!("the thread of a logical unit had panicked");
                Vec::new()
            })
        })
    }
}

/// Whose commands come through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Nobody knows.
    Unknown,
    /// One I_T nexus's.
    Of(NexusId),
    /// Those that the tap tells.
    Shared,
}

struct Port {
    device: Device,
    /// What was taken from its ring and has not been begun.
    taken: VecDeque<Taken>,
    /// What was taken from its ring and has not been answered.
    in_flight: InFlight,
    whose: Whose,
    notes: Option<DeviceNotes>,
    /// The I_T nexus whose commands have come through it, and will again if any do.
    served: Option<ItNexus>,
    /// The main thread was asked who sends.
    asked: bool,
    /// It was removed or its ring is broken: it is not looked at again.
    dead: bool,
}

/// What a turn begins of a port.
#[derive(Clone, Copy, Debug)]
struct Round {
    port: PortId,
    /// How many entries had been taken from its ring when the others had not been looked at.
    entries: usize,
}

/// What a worker is made of.
pub struct Parts<S, R> {
    /// The logical unit.
    pub unit: LogicalUnit,
    /// What stores its records. It is dropped before what locks the backing object: until then no other unit has them.
    pub recorder: R,
    /// Its blocks.
    pub store: S,
    /// What it lends to the copies of other units, if it does.
    pub medium: Option<Arc<dyn Medium>>,
    /// What the store and the recorder call when something is done.
    pub waker: Waker,
    /// Where notices go.
    pub notices: Sender<Notice>,
    /// For how long a RESERVE that conflicts with a session's waits for the end of that session: see [`LOGOUT_PATIENCE`].
    pub logout_patience: Duration,
    /// Whether its rings are looked at again before the thread sleeps.
    pub poll: Poll,
}

/// What the thread of a logical unit does. Only tests take its turns themselves.
pub struct Worker<S, R> {
    parts: Parts<S, R>,
    orders: Receiver<Order>,
    /// By which others give it orders.
    to_self: Orders,
    copies: Copies,
    ports: BTreeMap<PortId, Port>,
    /// Kept to be used again.
    woken: Vec<u64>,
    rounds: Vec<Round>,
    sessions: Sessions,
    unknown_nexus: u64,
    not_noted: u64,
    noted_late: u64,
    /// Who waits for the end of an order of the administrator's.
    administrators: HashMap<u64, Sender<Result<(), Undone>>>,
    next_ticket: u64,
    /// Whose RESERVE the main thread has been told of, and its number.
    reserve: Option<(PortId, u64)>,
    /// The main thread was asked to look for its session.
    looking: bool,
    /// Since when a RESERVE waits for the end of a session that the tap sees.
    doubted: Option<Instant>,
    stopping: bool,
    /// Nothing is stored any more.
    powered_off: bool,
    backlog: Backlog,
    polling: Polling,
    measure: Measure,
    refusals: Refusals,
}

/// Starts the thread of a logical unit.
pub fn start<S, R>(name: &str, parts: Parts<S, R>) -> io::Result<Handle>
where
    S: Store<Pending> + Send + 'static,
    R: Record + Send + 'static,
{
    let (orders, to_do) = unbounded();
    let mut worker = Worker::new(parts, (orders, to_do))?;
    let orders = worker.to_self.clone();
    let (running, ended) = bounded::<()>(0);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let rests = worker.run();
            // The store lets go of the backing object here.
            drop(worker);
            drop(running);
            rests
        })?;
    Ok(Handle {
        orders,
        ended,
        thread,
    })
}

impl<S: Store<Pending>, R: Record> Worker<S, R> {
    /// A worker without ports, which obeys the orders that come through that channel.
    pub fn new(
        mut parts: Parts<S, R>,
        (sender, orders): (Sender<Order>, Receiver<Order>),
    ) -> io::Result<Worker<S, R>> {
        parts.store.waits().watch(parts.waker.as_fd(), WAKER)?;
        let polling = Polling::new(parts.poll);
        Ok(Worker {
            to_self: Orders {
                orders: sender,
                waker: parts.waker.clone(),
            },
            copies: Copies::default(),
            parts,
            orders,
            ports: BTreeMap::new(),
            woken: Vec::new(),
            rounds: Vec::new(),
            sessions: Sessions::default(),
            unknown_nexus: 0,
            not_noted: 0,
            noted_late: 0,
            administrators: HashMap::new(),
            next_ticket: 0,
            reserve: None,
            looking: false,
            doubted: None,
            stopping: false,
            powered_off: false,
            backlog: Backlog::None,
            polling,
            measure: Measure::new(Instant::now),
            refusals: refusals(),
        })
    }

    /// Takes turns until it is told to stop and nothing is left to be answered.
    fn run(&mut self) -> Vec<Rest> {
        let mut more = false;
        // Nobody asks for the time while nothing waits for it.
        let mut ticked = None;
        while !(self.stopping && self.parts.unit.is_idle()) {
            self.wait(more);
            if self.parts.unit.needs_ticks() {
                if ticked.get_or_insert_with(Instant::now).elapsed() >= TICK {
                    ticked = Some(Instant::now());
                    self.tick();
                }
            } else {
                ticked = None;
            }
            more = self.turn();
        }
        // The last answers are out, the kernel is told, and the devices can be opened by others at once.
        self.wait(true);
        let rests = self.rests();
        let ports: Vec<PortId> = self.ports.keys().copied().collect();
        ports.into_iter().for_each(|id| self.bury(id));
        // The recorder ends when it has stored this.
        let last_words = self.parts.unit.last_words();
        if let Some(to_store) = last_words.filter(|_| !self.powered_off) {
            self.parts.recorder.submit(to_store);
        }
        rests
    }

    /// Does what there is to do now. Tells whether more is known to be left.
    pub fn turn(&mut self) -> bool {
        self.obey();
        let mut more = self.take_entries();
        self.take_done();
        more |= self.follow_reserve();
        more |= self.publish();
        self.end_turn();
        self.tell_refused();
        more
    }

    /// Waits until there is something to do; does not wait if there is known to be more.
    pub fn wait(&mut self, more: bool) {
        let time = if self.doubted.is_some() {
            Some(self.parts.logout_patience)
        } else if self.parts.unit.needs_ticks() || self.measure.needs_looks() {
            Some(TICK)
        } else {
            self.until_refused_is_told()
        };
        let leaves_rings = self.leaves_rings();
        let mut woken = std::mem::take(&mut self.woken);
        let waits = self.parts.store.waits();
        if more || self.polling.is_on() {
            // The kernel is told of what was begun and answered.
            waits.wait(Some(Duration::ZERO), &mut woken);
        }
        let (ports, waker) = (&self.ports, &self.parts.waker);
        let is_there = || {
            let mut live = ports.values().filter(|port| !port.dead);
            live.any(|port| port.device.ring.has_more()) || waker.rings() || waits.may_have_come()
        };
        // Of those that stop, what lies on the rings is none of their business.
        let is_quiet = !more && woken.is_empty();
        if is_quiet && (leaves_rings || !self.polling.look(is_there)) {
            self.polling.sleep(|| waits.wait(time, &mut woken));
        }
        for key in woken.drain(..) {
            // Take note first, look after: what comes in between wakes us again.
            if key == WAKER {
                self.parts.waker.acknowledge();
                continue;
            }
            let id = PortId(usize::try_from(key).expect("a PortId went in"));
            let Some(port) = self.ports.get_mut(&id) else {
                continue;
            };
            if let Err(removed) = port.device.acknowledge() {
                log::debug!("port {}: {removed}", id.0);
                self.bury(id);
            }
        }
        self.woken = woken;
    }

    fn obey(&mut self) {
        // Those that come meanwhile have their turn after the rings.
        for order in self
            .orders
            .try_iter()
            .take(self.orders.len())
            .collect::<Vec<_>>()
        {
            match order {
                Order::AddPort(id, device) => self.add(id, device),
                Order::LeaveBacklog => self.backlog = Backlog::Left,
                Order::TakeBacklog => self.take_backlog(),
                Order::Identify {
                    port,
                    identity,
                    target_ports,
                } => {
                    self.parts.unit.set_target_ports(target_ports);
                    self.identify(port, identity);
                }
                Order::ServedPorts(ports) => self.parts.unit.set_served_ports(ports),
                Order::Tap(id, mut notes) => {
                    // What lies on the ring was noted for nobody.
                    notes.restart();
                    self.tap(id, notes);
                }
                Order::GoOn(id, notes, sessions) => {
                    self.tap(id, notes);
                    self.sessions.expect(id, sessions);
                }
                Order::Share { port, target_ports } => {
                    self.parts.unit.set_target_ports(target_ports);
                    self.share(port);
                }
                Order::SessionsEnded => self.sweep(),
                Order::Peers(peers) => self.set_peers(peers),
                Order::Lend(wish, question) => self.lend(&wish, question),
                Order::Lent(ticket, lent) => self.lent(ticket, lent),
                Order::GivenBack(loan) => self.parts.unit.given_back(loan),
                Order::RemovePort(id, removed) => {
                    self.remove(id);
                    // Whoever asked may have given up.
                    let _ = removed.send(());
                }
                Order::DefaultWriteCache(write_cache) => {
                    self.parts.unit.set_default_write_cache(write_cache);
                }
                Order::WriteCache(write_cache) => self.parts.unit.set_write_cache(write_cache),
                Order::Administer { action, reply } => {
                    let ticket = self.ticket(reply);
                    self.parts.unit.administer(action, ticket);
                }
                Order::Alter { alteration, reply } => {
                    let ticket = self.ticket(reply);
                    self.parts.unit.alter(alteration, ticket);
                }
                Order::SpaceLow => self.parts.unit.soft_threshold_reached(),
                Order::Report(reply) => {
                    let _ = reply.send(self.report());
                }
                Order::ExpectLooks => self.parts.unit.expect_looks(),
                Order::SessionLost(id, number) => {
                    self.session_lost(id, number);
                }
                Order::Looked => {
                    self.looking = false;
                    self.parts.unit.looked();
                }
                Order::PowerOff => self.powered_off = true,
                Order::Stop => {
                    self.stopping = true;
                    self.parts.unit.wind_up();
                    // Nobody looks any more.
                    self.parts.unit.looked();
                }
            }
        }
    }

    /// What an order is called whose end is told there.
    fn ticket(&mut self, reply: Sender<Result<(), Undone>>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.administrators.insert(ticket, reply);
        Ticket(ticket)
    }

    fn session_lost(&mut self, id: PortId, number: u64) {
        let served = self.ports.get(&id).and_then(|port| port.served.clone());
        // Of a shared port's, only one that the tap does not see is asked for.
        let holder = served.or_else(|| {
            let (holder, _) = self.parts.unit.reserve()?;
            (!self.sessions.knows(holder)).then(|| holder.clone())
        });
        if let Some(nexus) = holder {
            self.parts.unit.session_lost(&nexus, number);
        }
    }

    fn add(&mut self, id: PortId, device: Device) {
        let waits = self.parts.store.waits();
        let watched = waits.watch(device.doorbell(), id.0 as u64);
        let dead = watched.is_err();
        if let Err(error) = watched {
            log::error!("port {}: cannot be waited for: {error}", id.0);
        }
        self.ports.insert(
            id,
            Port {
                device,
                taken: VecDeque::new(),
                in_flight: InFlight::default(),
                whose: Whose::Unknown,
                notes: None,
                served: None,
                asked: false,
                dead,
            },
        );
    }

    fn identify(&mut self, id: PortId, identity: Option<Identity>) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        port.asked = false;
        if let Some(nexus) = identity
            .as_ref()
            .and_then(|identity| identity.nexus.as_ref())
        {
            port.served = Some(nexus.clone());
        }
        let unit = &mut self.parts.unit;
        // In before out, so that what is kept for a nexus that stays is not forgotten.
        let now = identity.map_or(Whose::Unknown, |identity| {
            Whose::Of(unit.attach(identity.nexus, identity.mapping))
        });
        if let Whose::Of(before) = std::mem::replace(&mut port.whose, now) {
            unit.detach(before);
        }
    }

    fn tap(&mut self, id: PortId, notes: DeviceNotes) {
        // The tap is a new one if any port has notes of another: nothing is known of sessions any more.
        let mut others = self.ports.values().filter_map(|port| port.notes.as_ref());
        if others.any(|other| !other.notes().is_same(notes.notes())) {
            self.sessions.clear(&mut self.parts.unit);
            for port in self.ports.values_mut() {
                port.notes = None;
            }
        }
        if let Some(port) = self.ports.get_mut(&id) {
            port.notes = Some(notes);
        }
    }

    fn share(&mut self, id: PortId) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.asked = false;
            if let Whose::Of(before) = std::mem::replace(&mut port.whose, Whose::Shared) {
                self.parts.unit.detach(before);
            }
        }
    }

    /// Lets go of the sessions that have ended.
    fn sweep(&mut self) {
        let notes = self.ports.values().find_map(|port| port.notes.as_ref());
        if let Some(notes) = notes {
            self.sessions.sweep(&mut self.parts.unit, notes.notes());
        }
    }

    fn remove(&mut self, id: PortId) {
        self.bury(id);
        let Some(port) = self.ports.remove(&id) else {
            return;
        };
        // Also if nobody knew any more whom it serves: what that nexus has reserved would stay for ever. But not if it
        // comes through another port by now.
        if let Some(served) = port.served {
            let mut others = self.ports.values();
            if !others.any(|other| other.served.as_ref() == Some(&served)) {
                self.parts.unit.nexus_lost(served);
            }
        }
        match port.whose {
            Whose::Unknown => {}
            Whose::Of(nexus) => self.parts.unit.detach(nexus),
            // Those that come through another are known again with their next command.
            Whose::Shared => self.sessions.leave(&mut self.parts.unit, id),
        }
    }

    /// Looks at a port no more. What is in flight for it goes on; its answers go nowhere.
    fn bury(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut port.dead, true) {
            port.taken.clear();
            self.measure.forget(&mut port.in_flight);
            let waits = self.parts.store.waits();
            if let Err(error) = waits.forget(port.device.doorbell(), id.0 as u64) {
                log::debug!("port {}: {error}", id.0);
            }
        }
    }

    /// Takes entries from every ring, and begins them. Tells whether some may be left.
    ///
    /// A reset concerns the commands of all rings, and an initiator that knows of it may send the next one through another:
    /// what was on a ring when it was looked at waits until all rings have been looked at once more, and resets have been
    /// carried out.
    fn take_entries(&mut self) -> bool {
        let mut rounds = std::mem::take(&mut self.rounds);
        let live = self.ports.iter().filter(|(_, port)| !port.dead);
        rounds.extend(live.map(|(&port, _)| Round { port, entries: 0 }));
        let mut more = self.look_at(&rounds);
        for round in &mut rounds {
            round.entries = self
                .ports
                .get(&round.port)
                .map_or(0, |port| port.taken.len());
        }
        if rounds.len() > 1 {
            more |= self.look_at(&rounds);
        }
        for round in &mut rounds {
            let begun = self.begin_to_last_reset(round.port);
            round.entries = round.entries.saturating_sub(begun);
        }
        for Round { port, entries } in rounds.drain(..) {
            self.begin_taken(port, entries);
            let port = self.ports.get(&port);
            more |= port.is_some_and(|port| !port.taken.is_empty());
        }
        self.rounds = rounds;
        self.backlog_taken();
        more
    }

    fn take_entries_of(&mut self, id: PortId) -> bool {
        let mut bytes = 0;
        for _ in 0..ENTRIES_PER_TURN {
            let Some(port) = self.ports.get_mut(&id) else {
                return false;
            };
            match port.device.ring.pop() {
                Ok(None) => return false,
                Ok(Some(entry)) => {
                    if let Entry::Command(command) = &entry {
                        bytes += command.data.len();
                        self.measure.taken(&mut port.in_flight, command);
                    }
                    backlog::push(&mut port.taken, entry);
                    if bytes > BYTES_PER_TURN {
                        return true;
                    }
                }
                Err(interrupted) => return self.interrupted(id, interrupted),
            }
        }
        true
    }

    /// Begins what was taken from a ring, up to the last reset. Tells how many entries that were.
    fn begin_to_last_reset(&mut self, id: PortId) -> usize {
        let port = self.ports.get(&id);
        let last = port.and_then(|port| port.taken.iter().rposition(Taken::is_reset));
        let count = last.map_or(0, |last| last + 1);
        self.begin_taken(id, count);
        count
    }

    /// Begins the first so many entries of those that were taken from a ring.
    fn begin_taken(&mut self, id: PortId, count: usize) {
        for _ in 0..count {
            let port = self.ports.get_mut(&id);
            if let Some(taken) = port.and_then(|port| port.taken.pop_front()) {
                self.begin_entry(id, taken);
            }
        }
    }

    fn begin_entry(&mut self, id: PortId, taken: Taken) {
        let entry = match taken.entry {
            Entry::Command(command) => return self.begin(id, command, taken.aborted),
            Entry::TaskManagement(entry) => entry,
        };
        let told = match self.ports.get(&id).map(|port| port.whose) {
            Some(Whose::Of(nexus)) => vec![nexus],
            Some(Whose::Shared) => self.sessions.of_port(id),
            Some(Whose::Unknown) | None => Vec::new(),
        };
        log::info!("port {}: {:?}", id.0, entry.function);
        match entry.function {
            Function::LogicalUnitReset | Function::TargetReset => self.parts.unit.reset(&told),
            Function::AbortTask => {
                let ids = &entry.commands;
                let unit = &mut self.parts.unit;
                unit.abort_task(|tag| tag.port == id.0 && ids.contains(&tag.command));
            }
            Function::Other(_) => {}
        }
    }

    /// Tells whether entries may be left on the ring.
    fn interrupted(&mut self, id: PortId, why: Interrupted) -> bool {
        let Some(port) = self.ports.get_mut(&id) else {
            return false;
        };
        match why {
            Interrupted::Reset => {
                log::warn!(
                    "port {}: its ring was reset; initiators repeat their commands",
                    id.0
                );
                port.device.ring.restart();
                port.taken.clear();
                self.measure.forget(&mut port.in_flight);
                if let Some(notes) = &mut port.notes {
                    notes.restart();
                }
                true
            }
            Interrupted::Broken(_) => {
                self.bury(id);
                // The main thread may be gone while we stop.
                let _ = self.parts.notices.send(Notice::Failed(id, why));
                false
            }
        }
    }

    /// Whose command that of this id is, the next one on the ring of that port.
    fn sender(&mut self, id: PortId, command: u16) -> Option<NexusId> {
        let port = self.ports.get_mut(&id)?;
        // In step with the ring, whether anybody may send or not.
        let note = port.notes.as_mut().map(|notes| {
            let note = notes.take(command);
            if note != Err(Missing::NotNoted) {
                return note;
            }
            // The kernel puts a command on the ring and notes it while it holds what it also needs for a kick.
            if let Err(removed) = port.device.kick() {
                log::debug!("port {}: {removed}", id.0);
            }
            let note = notes.take(command);
            self.noted_late += u64::from(note != Err(Missing::NotNoted));
            note
        });
        let note = match (port.whose, note) {
            (Whose::Unknown, _) => {
                self.ask_who_sends(id);
                return None;
            }
            (Whose::Of(nexus), _) => return Some(nexus),
            (Whose::Shared, Some(Ok(note))) => note,
            (Whose::Shared, missing) => {
                self.not_noted += 1;
                log::debug!("port {}: command {command}: {missing:?}", id.0);
                return None;
            }
        };
        let notes = port.notes.as_ref()?.notes();
        match self.sessions.nexus(&mut self.parts.unit, id, notes, note) {
            Ok(nexus) => Some(nexus),
            Err(Unknown::Unnamed) => None,
            Err(Unknown::NewPort) => {
                self.ask_who_sends(id);
                None
            }
        }
    }

    fn begin(&mut self, id: PortId, command: Command, aborted: bool) {
        let CommandId {
            id: command_id,
            epoch,
        } = command.id;
        let tag = Tag {
            port: id.0,
            command: command_id,
            epoch,
        };
        let Some(nexus) = self.sender(id, command_id) else {
            self.unknown_nexus += 1;
            return self.answer(lu::busy(tag, command.data));
        };
        if aborted {
            return self.answer(lu::aborted(tag, command.data));
        }
        log::trace!(
            "port {}: command {command_id} of {}: {:02x?}",
            id.0,
            self.parts.unit.name(nexus),
            &command.cdb[..16]
        );
        if command.bidirectional {
            return self.answer(lu::refuse_bidirectional(tag, command.data));
        }
        let task = Task::new(tag, nexus, command.cdb, command.data);
        let step = self.parts.unit.begin(task);
        self.perform(step);
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Answer(answer) => self.answer(answer),
            Step::Held => {}
            Step::Io(request, pending) => self.parts.store.submit(request, pending),
            Step::Ask(name, wish, asking) => self.ask(name, wish, asking),
            Step::Store(_) if self.powered_off => {
                let step = self.parts.unit.stored(false);
                self.perform(step);
            }
            Step::Store(to_store) => self.parts.recorder.submit(to_store),
            Step::Administered(Ticket(ticket), outcome) => {
                if let Some(reply) = self.administrators.remove(&ticket) {
                    // Whoever asked may have gone.
                    let _ = reply.send(outcome.map_err(words::undone));
                }
            }
        }
    }

    fn ask_who_sends(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut port.asked, true) {
            // The main thread may be gone while we stop.
            let _ = self.parts.notices.send(Notice::WhoSends(id));
        }
    }

    fn take_done(&mut self) {
        while let Some(done) = self.parts.store.reap() {
            let step = self.parts.unit.finish(done.ticket, done.data, done.result);
            self.perform(step);
        }
        while let Some(stored) = self.parts.recorder.reap() {
            let step = self.parts.unit.stored(stored);
            self.perform(step);
        }
        while let Some(step) = self.parts.unit.next_step() {
            self.perform(step);
        }
    }

    fn answer(&mut self, answer: Answer) {
        let (delivery, data) = answer.deliver(self.parts.unit.sense_format());
        let tag = delivery.tag;
        // A port that is gone has had its commands ended by the kernel.
        let Some(port) = self.ports.get_mut(&PortId(tag.port)) else {
            return;
        };
        self.measure
            .answered(&mut port.in_flight, &delivery, data.len());
        let completion = Completion {
            status: delivery.status,
            data_in_length: delivery.data_in_length,
            sense: &delivery.sense,
        };
        port.device.ring.complete(
            CommandId {
                id: tag.command,
                epoch: tag.epoch,
            },
            &completion,
        );
        port.device.ring.reuse(data);
    }

    /// Tells whether a ring has to be looked at again.
    fn publish(&mut self) -> bool {
        let mut interrupted = Vec::new();
        for (&id, port) in self.ports.iter_mut().filter(|(_, port)| !port.dead) {
            match port.device.ring.publish() {
                Ok(false) => {}
                Ok(true) => {
                    let waits = self.parts.store.waits();
                    waits.write(port.device.doorbell(), KICK);
                }
                Err(why) => interrupted.push((id, why)),
            }
        }
        let mut more = false;
        for (id, why) in interrupted {
            more |= self.interrupted(id, why);
        }
        more
    }

    fn report(&mut self) -> Report {
        let measured = self.measured();
        let unit = &self.parts.unit;
        Report {
            reservations: unit.reservations().clone(),
            fenced: unit.is_fenced(),
            mode: unit.mode_values(),
            flush_failed: unit.has_flush_failed(),
            counters: unit.counters(),
            unknown_nexus: self.unknown_nexus,
            not_noted: self.not_noted,
            noted_late: self.noted_late,
            sessions: self.sessions.list(),
            in_flight: unit.in_flight(),
            waiting: unit.waiting(),
            measured,
        }
    }
}
