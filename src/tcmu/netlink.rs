//! The kernel's messages about TCMU devices, and our answers: generic netlink family TCM-USER.
//!
//! The kernel tells all listeners when a device is about to be added, removed or reconfigured, and lets the
//! process that asked for it wait, uninterruptibly, until somebody answers. So every [`DeviceEvent`] carries
//! a [`Request`], the right to answer it once: [`Replier::reply`] consumes it, a status that the kernel would
//! misread cannot be said, and a `Request` dropped unanswered is logged.
//!
//! An answer must meet the very request that is pending: one for an earlier request of the same device would
//! strand the waiter for ever. Requests therefore come from [`Listener::next_event`] only, and [`open`] first
//! makes the kernel forget what it asked before we listened.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use neli::consts::nl::NlmF;
use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::types::{Buffer, GenlBuffer};
use neli::{FromBytesWithInput, Size, ToBytes};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::{setsockopt_impl, sockopt_impl};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Where the kernel keeps the module's switches.
pub const PARAMETERS: &str = "/sys/module/target_core_user/parameters";

const FAMILY: &str = "TCM-USER";
const GROUP: &str = "config";
const VERSION: u8 = 2;

/// The kernel sends a message per reconfigured attribute: this holds those of thousands of devices.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Longer than any message of the family, whose strings are at most a few hundred bytes.
const MESSAGE_MAX: usize = 16 << 10;
/// The kernel answers a request before `send` returns; this only bounds the damage if it doesn't.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;

/// Commands of the family.
mod command {
    pub(super) const ADDED_DEVICE: u8 = 1;
    pub(super) const REMOVED_DEVICE: u8 = 2;
    pub(super) const RECONFIG_DEVICE: u8 = 3;
    pub(super) const ADDED_DEVICE_DONE: u8 = 4;
    pub(super) const REMOVED_DEVICE_DONE: u8 = 5;
    pub(super) const RECONFIG_DEVICE_DONE: u8 = 6;
    pub(super) const SET_FEATURES: u8 = 7;
}

/// Attributes of the family.
mod attribute {
    pub(super) const DEVICE: u16 = 1;
    pub(super) const MINOR: u16 = 2;
    pub(super) const DEV_CFG: u16 = 4;
    pub(super) const DEV_SIZE: u16 = 5;
    pub(super) const WRITECACHE: u16 = 6;
    pub(super) const CMD_STATUS: u16 = 7;
    pub(super) const DEVICE_ID: u16 = 8;
    pub(super) const SUPP_KERN_CMD_REPLY: u16 = 9;
}

/// The generic netlink controller, which knows the families' numbers.
mod control {
    pub(super) const TYPE: u16 = 0x10;
    pub(super) const VERSION: u8 = 2;
    pub(super) const GETFAMILY: u8 = 3;
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const MCAST_GROUPS: u16 = 7;
    pub(super) const MCAST_GRP_NAME: u16 = 1;
    pub(super) const MCAST_GRP_ID: u16 = 2;
}

sockopt_impl!(
    /// Makes the kernel's send fail when we missed a message, instead of letting somebody wait for an
    /// answer to what we have not seen.
    BroadcastError, SetOnly, libc::SOL_NETLINK, libc::NETLINK_BROADCAST_ERROR, bool
);
sockopt_impl!(
    /// Subscribes to a multicast group.
    AddMembership, SetOnly, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, u32
);

/// What went wrong between the kernel and us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be set up.
    #[error("cannot {step} a generic netlink socket")]
    Socket {
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: Errno,
    },
    /// The module is not there.
    #[error(
        "the kernel has no netlink family {0}: load its module with `modprobe target_core_user` \
         (package with the full set of kernel modules, if there is none)"
    )]
    NoFamily(&'static str),
    /// The family is not as we know it.
    #[error(
        "the netlink family {FAMILY} has no multicast group {GROUP}: this kernel is not supported"
    )]
    NoGroup,
    /// A request could not be sent, or its answer not be read.
    #[error("cannot {step} over netlink")]
    Exchange {
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: Errno,
    },
    /// The kernel said no.
    #[error("the kernel refuses to {step}{hint}", hint = privilege_hint(*source))]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: Errno,
    },
    /// A message could not be read.
    #[error("cannot receive the kernel's messages about TCMU devices")]
    Receive(#[source] Errno),
    /// A message made no sense.
    #[error("the kernel's message about a TCMU device {0}")]
    Malformed(&'static str),
    /// A switch of the module could not be set.
    #[error("cannot write {value} to {path}")]
    Parameter {
        /// The switch.
        path: PathBuf,
        /// Its value.
        value: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn privilege_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => ": run tcmu-pr as root, with CAP_NET_ADMIN in the initial user namespace",
        _ => "",
    }
}

/// What the kernel has to say.
#[derive(Debug)]
pub enum Event {
    /// Something about a device.
    Device(DeviceEvent),
    /// Messages were lost. Nobody waits for an answer to them, but the set of devices may have changed:
    /// look at all of them again.
    Overrun,
}

/// Something about a device: ours or another handler's.
#[derive(Debug)]
pub struct DeviceEvent {
    /// What happened.
    pub change: Change,
    /// The device's UIO name; [`super::config::Name::parse`] takes it apart.
    pub device: String,
    /// The minor number of the UIO device: `/dev/uio<minor>`.
    pub minor: u32,
    /// The kernel's number of the device.
    pub device_id: u32,
    /// The right to answer.
    pub request: Request,
}

/// What happens to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is being made; a failing answer unmakes it.
    Added,
    /// It is about to go, whatever the answer.
    Removed,
    /// Somebody writes one of its settings; a failing answer leaves the old value.
    Reconfigured(Setting),
}

/// A setting and the value it shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `dev_config`: the config string, subtype included.
    Config(String),
    /// `dev_size`, in bytes.
    Size(u64),
    /// `emulate_write_cache`.
    WriteCache(bool),
    /// One that this version does not know.
    Other,
}

/// The right to answer one event, once.
#[must_use = "somebody in the kernel may wait for the answer, uninterruptibly"]
pub struct Request {
    done: u8,
    device_id: u32,
    device: String,
    settled: bool,
}

impl Request {
    /// Leaves the answer to the handler whose device it is.
    pub fn leave(mut self) {
        self.settled = true;
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} of device {})", self.done, self.device_id)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.settled {
            log::error!(
                "the kernel's message about {} was not answered: whoever made the change may hang",
                self.device.escape_debug()
            );
        }
    }
}

/// Begins to listen: from here on the kernel waits for our answers.
///
/// What others asked of the kernel before, and still wait for, is ended with EINTR (targetcli then asks
/// again). So no other handler may be at work: make sure of that first. `parameters` is [`PARAMETERS`].
pub fn open(parameters: &Path) -> Result<(Listener, Replier), Error> {
    let mut requests = Requests::new()?;
    let family = requests.resolve(FAMILY)?;
    let group = family.groups.iter().find(|(name, _)| name == GROUP);
    let listener = Listener::subscribe(family.id, group.ok_or(Error::NoGroup)?.1)?;
    let mut replier = Replier {
        requests,
        family: family.id,
        parameters: parameters.to_owned(),
    };
    replier.set_features(1)?;
    end_pending(parameters, || listener.discard())?;
    Ok((listener, replier))
}

/// Ends all pending requests with EINTR.
///
/// What is done `meanwhile` is done while nothing new is sent: what is in our queue then was sent for requests that
/// have ended. A request repeated in between fails: hence all files are opened before.
fn end_pending(
    parameters: &Path,
    meanwhile: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let mut block = Parameter::open(parameters, "block_netlink")?;
    let mut reset = Parameter::open(parameters, "reset_netlink")?;
    block.write("1")?;
    let outcome = reset.write("1").and_then(|()| meanwhile());
    block.write("0")?;
    outcome
}

struct Parameter {
    path: PathBuf,
    file: File,
}

impl Parameter {
    fn open(parameters: &Path, name: &str) -> Result<Parameter, Error> {
        let path = parameters.join(name);
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Parameter { path, file }),
            Err(source) => Err(Error::Parameter {
                path,
                value: "anything",
                source,
            }),
        }
    }

    fn write(&mut self, value: &'static str) -> Result<(), Error> {
        let written = self.file.write_all(value.as_bytes());
        written.map_err(|source| Error::Parameter {
            path: self.path.clone(),
            value,
            source,
        })
    }
}

/// Hears what the kernel says about TCMU devices.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    family: u16,
    events: VecDeque<DeviceEvent>,
}

impl Listener {
    fn subscribe(family: u16, group: u32) -> Result<Listener, Error> {
        let socket = open_socket()?;
        let set = |step| move |source| Error::Socket { step, source };
        setsockopt(&socket, BroadcastError, &true).map_err(set("report lost messages on"))?;
        // Without CAP_NET_ADMIN, net.core.rmem_max limits the size.
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES))
            .map_err(set("enlarge the buffer of"))?;
        setsockopt(&socket, AddMembership, &group).map_err(set("subscribe with"))?;
        Ok(Listener {
            socket,
            family,
            events: VecDeque::new(),
        })
    }

    /// Waits for the next event.
    ///
    /// After an error the listener goes on with the next message.
    pub fn next_event(&mut self) -> Result<Event, Error> {
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Event::Device(event));
            }
            match receive(&self.socket, &mut buffer, MsgFlags::empty()) {
                Ok(message) => self.events = decode(self.family, message)?,
                Err(Errno::ENOBUFS) => return Ok(Event::Overrun),
                Err(errno) => return Err(Error::Receive(errno)),
            }
        }
    }

    /// Throws away what was received so far.
    fn discard(&self) -> Result<(), Error> {
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            match receive(&self.socket, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(Error::Receive(errno)),
            }
        }
    }
}

/// Answers the kernel. Has a socket of its own, so it can live in another thread than the [`Listener`].
#[derive(Debug)]
pub struct Replier {
    requests: Requests,
    family: u16,
    parameters: PathBuf,
}

impl Replier {
    /// Answers `request`: the change is done, or is refused with an error number for whoever asked for it.
    ///
    /// Tells whether the kernel has waited for it. If not, that is logged and no error: another process has answered, or
    /// whoever made the device wants no answers.
    pub fn reply(&mut self, request: Request, outcome: Result<(), Errno>) -> Result<bool, Error> {
        let mut request = request;
        request.settled = true;
        let (number, attributes) = encode_done(&request, outcome);
        match self.requests.command(self.family, number, &attributes) {
            Ok(()) => Ok(true),
            Err(Failure::Refused(Errno::ENODEV)) => {
                log::warn!(
                    "the kernel did not wait for our answer about {}: \
                     has another handler answered it? Only one may run, see `systemctl status tcmu-runner`. With \
                     nl_reply_supported=-1 it never waits",
                    request.device.escape_debug()
                );
                Ok(false)
            }
            Err(failure) => Err(failure.of("take our answer about a device")),
        }
    }

    fn set_features(&mut self, kernel_waits: u8) -> Result<(), Error> {
        let attributes = [attribute(attribute::SUPP_KERN_CMD_REPLY, kernel_waits)];
        self.requests
            .command(self.family, command::SET_FEATURES, &attributes)
            .map_err(|failure| failure.of("wait for the handler's answers"))
    }
}

/// We answer no more: the kernel is told to wait for nobody, and who waits already is let go with EINTR. Devices
/// made after this are made unseen, and are found by the next daemon.
impl Drop for Replier {
    fn drop(&mut self) {
        let retired = self
            .set_features(0)
            .and_then(|()| end_pending(&self.parameters, || Ok(())));
        if let Err(error) = retired {
            log::warn!("the kernel may wait for answers that do not come: {error}");
        }
    }
}

/// The status of a DONE message is 0 or a negative error number; a positive one would make the change look
/// successful after it was undone.
fn encode_done(request: &Request, outcome: Result<(), Errno>) -> (u8, [Nlattr<u16, Buffer>; 2]) {
    let status: i32 = match outcome {
        Ok(()) => 0,
        Err(Errno::UnknownErrno) => -(Errno::EINVAL as i32),
        Err(errno) => -(errno as i32),
    };
    let attributes = [
        attribute(attribute::CMD_STATUS, status),
        attribute(attribute::DEVICE_ID, request.device_id),
    ];
    (request.done, attributes)
}

/// A socket on which requests are sent and their acknowledgements read, one after the other.
#[derive(Debug)]
struct Requests {
    socket: OwnedFd,
    sequence: u32,
}

/// Why a request came to nothing.
#[derive(Debug)]
enum Failure {
    Refused(Errno),
    Exchange(Errno),
    Malformed(&'static str),
}

impl Failure {
    fn of(self, step: &'static str) -> Error {
        match self {
            Failure::Refused(source) => Error::Refused { step, source },
            Failure::Exchange(source) => Error::Exchange { step, source },
            Failure::Malformed(what) => Error::Malformed(what),
        }
    }
}

/// What the generic netlink controller knows of a family.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    id: u16,
    groups: Vec<(String, u32)>,
}

impl Requests {
    fn new() -> Result<Requests, Error> {
        let socket = open_socket()?;
        let timeout = TimeVal::seconds(ANSWER_TIMEOUT_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(|source| Error::Socket {
            step: "set the time limit of",
            source,
        })?;
        Ok(Requests {
            socket,
            sequence: 0,
        })
    }

    fn command(
        &mut self,
        family: u16,
        number: u8,
        attributes: &[Nlattr<u16, Buffer>],
    ) -> Result<(), Failure> {
        self.exchange(family, number, VERSION, attributes)
            .map(|_| ())
    }

    fn resolve(&mut self, name: &'static str) -> Result<Family, Error> {
        let asked = [attribute(control::FAMILY_NAME, name)];
        match self.exchange(control::TYPE, control::GETFAMILY, control::VERSION, &asked) {
            Ok(Some(answer)) => decode_family(&answer),
            Ok(None) | Err(Failure::Refused(Errno::ENOENT)) => Err(Error::NoFamily(name)),
            Err(failure) => Err(failure.of("name the netlink family of TCMU")),
        }
    }

    /// Sends a request and waits for its acknowledgement. Returns the message that came before it, if any.
    fn exchange(
        &mut self,
        message_type: u16,
        number: u8,
        version: u8,
        attributes: &[Nlattr<u16, Buffer>],
    ) -> Result<Option<Vec<u8>>, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = encode(message_type, number, version, self.sequence, attributes);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty()).map_err(Failure::Exchange)?;
        let mut answer = None;
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            let received = receive(&self.socket, &mut buffer, MsgFlags::empty());
            for message in Messages(received.map_err(Failure::Exchange)?) {
                let (header, payload) = message.map_err(Failure::Malformed)?;
                if header.sequence != self.sequence {
                    continue;
                }
                if header.message_type != NLMSG_ERROR {
                    answer = Some(payload.to_vec());
                    continue;
                }
                return match i32::read_from_prefix(payload) {
                    Ok((0, _)) => Ok(answer),
                    Ok((error, _)) => Err(Failure::Refused(Errno::from_raw(error.wrapping_neg()))),
                    Err(_) => Err(Failure::Malformed("ends before its error number")),
                };
            }
        }
    }
}

/// An unconnected socket sends to the kernel.
fn open_socket() -> Result<OwnedFd, Error> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )
    .map_err(|source| Error::Socket {
        step: "open",
        source,
    })?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(|source| Error::Socket {
        step: "bind",
        source,
    })?;
    Ok(socket)
}

/// Receives one message of the kernel; other processes' are passed over.
fn receive<'b>(socket: &OwnedFd, buffer: &'b mut [u8], flags: MsgFlags) -> Result<&'b [u8], Errno> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let received = match recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, flags) {
            Ok(received) => (received.bytes, received.address, received.flags),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        match received {
            (_, _, flags) if flags.contains(MsgFlags::MSG_TRUNC) => return Err(Errno::EMSGSIZE),
            (length, Some(sender), _) if sender.pid() == 0 => return Ok(&buffer[..length]),
            _ => {}
        }
    }
}

const NLMSG_ERROR: u16 = 2;

/// The header of every netlink message, in host byte order.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    length: u32,
    message_type: u16,
    flags: u16,
    sequence: u32,
    port_id: u32,
}

/// The messages in a datagram: header and what follows it. Ends after the first that makes no sense.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<(Header, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let Ok((header, _)) = Header::read_from_prefix(bytes) else {
            return Some(Err("ends in its header"));
        };
        let message = usize::try_from(header.length)
            .ok()
            .and_then(|length| bytes.get(..length));
        let Some(payload) = message.and_then(|message| message.get(size_of::<Header>()..)) else {
            return Some(Err("has a wrong length"));
        };
        let next = (size_of::<Header>() + payload.len()).next_multiple_of(4);
        self.0 = bytes.get(next..).unwrap_or_default();
        Some(Ok((header, payload)))
    }
}

type Attributes = Genlmsghdr<u8, u16>;

fn decode_attributes(payload: &[u8]) -> Result<Attributes, Error> {
    Attributes::from_bytes_with_input(&mut Cursor::new(payload), payload.len())
        .map_err(|_| Error::Malformed("has attributes of wrong lengths"))
}

/// The events in a datagram. Messages of other kinds are passed over.
fn decode(family: u16, datagram: &[u8]) -> Result<VecDeque<DeviceEvent>, Error> {
    let mut events = VecDeque::new();
    for message in Messages(datagram) {
        let (header, payload) = message.map_err(Error::Malformed)?;
        if header.message_type == family {
            events.extend(decode_event(&decode_attributes(payload)?)?);
        }
    }
    Ok(events)
}

fn decode_event(message: &Attributes) -> Result<Option<DeviceEvent>, Error> {
    let handle = message.attrs().get_attr_handle();
    let text = |number| {
        let attribute = handle.get_attribute(number)?;
        let bytes: &[u8] = attribute.nla_payload().as_ref();
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let number = |number| handle.get_attr_payload_as::<u32>(number).ok();
    let (change, done) = match *message.cmd() {
        command::ADDED_DEVICE => (Change::Added, command::ADDED_DEVICE_DONE),
        command::REMOVED_DEVICE => (Change::Removed, command::REMOVED_DEVICE_DONE),
        command::RECONFIG_DEVICE => {
            let setting = if let Some(config) = text(attribute::DEV_CFG) {
                Setting::Config(config)
            } else if let Ok(size) = handle.get_attr_payload_as::<u64>(attribute::DEV_SIZE) {
                Setting::Size(size)
            } else if let Ok(on) = handle.get_attr_payload_as::<u8>(attribute::WRITECACHE) {
                Setting::WriteCache(on != 0)
            } else {
                Setting::Other
            };
            (Change::Reconfigured(setting), command::RECONFIG_DEVICE_DONE)
        }
        _ => return Ok(None),
    };
    let device = text(attribute::DEVICE).ok_or(Error::Malformed("names no device"))?;
    let device_id =
        number(attribute::DEVICE_ID).ok_or(Error::Malformed("has no number of the device"))?;
    Ok(Some(DeviceEvent {
        change,
        minor: number(attribute::MINOR).ok_or(Error::Malformed("has no minor number"))?,
        device_id,
        request: Request {
            done,
            device_id,
            device: device.clone(),
            settled: false,
        },
        device,
    }))
}

fn decode_family(payload: &[u8]) -> Result<Family, Error> {
    const MALFORMED: Error = Error::Malformed("does not describe the netlink family");
    let message = decode_attributes(payload)?;
    let handle = message.attrs().get_attr_handle();
    let id = handle
        .get_attr_payload_as::<u16>(control::FAMILY_ID)
        .map_err(|_| MALFORMED)?;
    let mut groups = Vec::new();
    if let Ok(list) = handle.get_nested_attributes::<u16>(control::MCAST_GROUPS) {
        for entry in list.iter() {
            let entry = entry.get_attr_handle::<u16>().map_err(|_| MALFORMED)?;
            let name = entry
                .get_attribute(control::MCAST_GRP_NAME)
                .ok_or(MALFORMED)?;
            let name: &[u8] = name.nla_payload().as_ref();
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let number = entry.get_attr_payload_as::<u32>(control::MCAST_GRP_ID);
            groups.push((
                String::from_utf8_lossy(name).into_owned(),
                number.map_err(|_| MALFORMED)?,
            ));
        }
    }
    Ok(Family { id, groups })
}

fn attribute<P: Size + ToBytes>(number: u16, value: P) -> Nlattr<u16, Buffer> {
    let kind = AttrTypeBuilder::default().nla_type(number).build();
    NlattrBuilder::default()
        .nla_type(kind.expect("the one field without a default is set"))
        .nla_payload(value)
        .build()
        .expect("both fields are set, and a number or a name can be encoded")
}

fn encode(
    message_type: u16,
    number: u8,
    version: u8,
    sequence: u32,
    attributes: &[Nlattr<u16, Buffer>],
) -> Vec<u8> {
    let payload = GenlmsghdrBuilder::default()
        .cmd(number)
        .version(version)
        .attrs(attributes.iter().cloned().collect::<GenlBuffer<_, _>>())
        .build()
        .expect("all fields are set");
    let message: Nlmsghdr<u16, Attributes> = NlmsghdrBuilder::default()
        .nl_type(message_type)
        .nl_flags(NlmF::REQUEST | NlmF::ACK)
        .nl_seq(sequence)
        .nl_payload(NlPayload::Payload(payload))
        .build()
        .expect("all fields are set");
    let mut bytes = Cursor::new(Vec::with_capacity(message.padded_size()));
    message
        .to_bytes(&mut bytes)
        .expect("a vector takes everything");
    bytes.into_inner()
}

#[cfg(test)]
mod tests;
