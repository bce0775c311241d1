"""Random commands about reservations, and what reservations decide about: what tests/lab/compare-luns sends."""

import dataclasses
import struct
from dataclasses import dataclass

KEYS = (0xAAAAAAAAAAAAAAAA, 0xBBBBBBBBBBBBBBBB, 0xCCCCCCCCCCCCCCCC)
TYPES = (1, 3, 5, 6, 7, 8)
ALL_REGISTRANTS = (7, 8)
BLOCK_SIZE = 512

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)
REPLACE_LOST_RESERVATION = 8
ACTIONS = {
    REGISTER: "REGISTER",
    RESERVE: "RESERVE",
    RELEASE: "RELEASE",
    CLEAR: "CLEAR",
    PREEMPT: "PREEMPT",
    PREEMPT_AND_ABORT: "PREEMPT AND ABORT",
    REGISTER_AND_IGNORE: "REGISTER AND IGNORE EXISTING KEY",
    REGISTER_AND_MOVE: "REGISTER AND MOVE",
    REPLACE_LOST_RESERVATION: "REPLACE LOST RESERVATION",
}
READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
QUESTIONS = {
    READ_KEYS: "READ KEYS",
    READ_RESERVATION: "READ RESERVATION",
    REPORT_CAPABILITIES: "REPORT CAPABILITIES",
    READ_FULL_STATUS: "READ FULL STATUS",
}

# What the gate lets through or not: name, CDB, bytes to the device, bytes from it. All of it is block 0.
PROBES = (
    ("TEST UNIT READY", "00 00 00 00 00 00", 0, 0),
    ("REQUEST SENSE", "03 00 00 00 fc 00", 0, 252),
    ("READ(6)", "08 00 00 00 01 00", 0, BLOCK_SIZE),
    ("WRITE(6)", "0a 00 00 00 01 00", BLOCK_SIZE, 0),
    ("INQUIRY", "12 00 00 00 24 00", 0, 36),
    ("MODE SENSE(6)", "1a 00 3f 00 ff 00", 0, 255),
    ("READ CAPACITY(10)", "25 00 00 00 00 00 00 00 00 00", 0, 8),
    ("READ(10)", "28 00 00 00 00 00 00 00 01 00", 0, BLOCK_SIZE),
    ("WRITE(10)", "2a 00 00 00 00 00 00 00 01 00", BLOCK_SIZE, 0),
    ("SYNCHRONIZE CACHE(10)", "35 00 00 00 00 00 00 00 00 00", 0, 0),
    ("MODE SENSE(10)", "5a 00 3f 00 00 00 00 00 ff 00", 0, 255),
    ("READ(16)", "88 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 0, BLOCK_SIZE),
    ("WRITE(16)", "8a 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", BLOCK_SIZE, 0),
    ("SYNCHRONIZE CACHE(16)", "91 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", 0, 0),
    ("READ CAPACITY(16)", "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 0, 32),
    ("REPORT LUNS", "a0 00 00 00 00 00 00 00 01 00 00 00", 0, 256),
    ("READ(12)", "a8 00 00 00 00 00 00 00 00 01 00 00", 0, BLOCK_SIZE),
    ("WRITE(12)", "aa 00 00 00 00 00 00 00 00 01 00 00", BLOCK_SIZE, 0),
)


@dataclass(frozen=True)
class Command:
    """A command, as bytes and as what they mean; for whom it is not said, the meaning is empty."""

    name: str
    cdb: bytes
    data_out: bytes = b""
    data_in_length: int = 0
    # PERSISTENT RESERVE OUT and IN: the service action.
    out: int | None = None
    question: int | None = None
    scope: int = 0
    type: int = 0
    reservation_key: int = 0
    action_key: int = 0
    spec_i_pt: bool = False
    all_tg_pt: bool = False
    aptpl: bool = False
    unreg: bool = False
    # The initiator ports of the parameter list, by the names that they have here; MALFORMED is none.
    ports: tuple[str, ...] = ()
    relative_target_port: int = 0

    @property
    def is_preempt(self):
        return self.out in (PREEMPT, PREEMPT_AND_ABORT)

    @property
    def is_register(self):
        return self.out in (REGISTER, REGISTER_AND_IGNORE)

    @property
    def list_length(self):
        """PARAMETER LIST LENGTH."""
        return len(self.data_out)

    def __str__(self):
        words = [self.name]
        if self.out is not None:
            words.append(f"type {self.type} key {short(self.reservation_key)} action key {short(self.action_key)}")
            words.extend(f"scope {self.scope}" for _ in range(self.scope != 0))
            words.extend(flag for flag in ("spec_i_pt", "all_tg_pt", "aptpl", "unreg") if getattr(self, flag))
            words.extend(f"port {port}" for port in self.ports)
            words.append(f"({self.list_length} bytes)")
        elif self.question is not None:
            words.append(f"({self.data_in_length} bytes)")
        return " ".join(words)


def short(key):
    """A key's first digit, which tells those of KEYS apart."""
    return f"{key:016x}"[0]


MALFORMED = "malformed"


def transport_id(name, isid=None):
    """The TransportID of an iSCSI initiator port, or of the initiator if there is no ISID (SPC-4 r37, TransportIDs)."""
    text = name if isid is None else f"{name},i,0x{isid:012x}"
    padded = text.encode() + b"\0"
    padded += bytes(-len(padded) % 4)
    padded = padded.ljust(20, b"\0")
    return struct.pack(">BxH", 0x05 if isid is None else 0x45, len(padded)) + padded


# TransportIDs that are wrong and do not lead the kernel astray: each ends with NUL.
MALFORMED_IDS = (
    # Of Fibre Channel.
    bytes([0x00] + [0] * 7 + [0x21] * 8 + [0] * 8),
    # A port without the separator.
    struct.pack(">BxH", 0x45, 40) + b"iqn.2025-01.org.tcmu-pr:d".ljust(40, b"\0"),
)


def persistent_reserve_out(out, scope=0, type=0, key=0, action_key=0, **more):
    """A PERSISTENT RESERVE OUT. more is what else Command has, and ids: what it names, as port and bytes; surplus: bytes
    behind that; length: where all of it is cut, or filled up to."""
    ids, surplus, length = more.pop("ids", ()), more.pop("surplus", 0), more.pop("length", None)
    command = Command(
        name=ACTIONS.get(out, f"PERSISTENT RESERVE OUT {out:02x}h"),
        cdb=b"",
        out=out,
        scope=scope,
        type=type,
        reservation_key=key,
        action_key=action_key,
        ports=tuple(port for port, _ in ids),
        **more,
    )
    bodies = b"".join(body for _, body in ids)
    if out == REGISTER_AND_MOVE:
        flags = command.unreg << 1 | command.aptpl
        data = struct.pack(">QQxBHI", key, action_key, flags, command.relative_target_port, len(bodies)) + bodies
    else:
        flags = command.spec_i_pt << 3 | command.all_tg_pt << 2 | command.aptpl
        data = struct.pack(">QQ4xB3x", key, action_key, flags)
        if command.spec_i_pt and out == REGISTER:
            data += struct.pack(">I", len(bodies)) + bodies + bytes(surplus)
    if length is not None:
        data = data[:length].ljust(length, b"\0")
    cdb = struct.pack(">BBBxxIx", 0x5F, out, scope << 4 | type, len(data))
    return dataclasses.replace(command, cdb=cdb, data_out=data)


def persistent_reserve_in(question, length):
    """A PERSISTENT RESERVE IN with that ALLOCATION LENGTH."""
    name = QUESTIONS.get(question, f"PERSISTENT RESERVE IN {question:02x}h")
    cdb = struct.pack(">BB5xHx", 0x5E, question, length)
    return Command(name, cdb, data_in_length=length, question=question)


def probe(name, cdb, bytes_out, bytes_in):
    """A command of PROBES."""
    return Command(name, bytes.fromhex(cdb), bytes(bytes_out), bytes_in)


TEST_UNIT_READY = probe(*PROBES[0])
REQUEST_SENSE = probe(*PROBES[1])
RELEASE_6 = Command("RELEASE(6)", bytes.fromhex("17 00 00 00 00 00"))


class Stream:
    """Draws commands that are likely to do something in the state that both sides are in."""

    def __init__(self, random, nodes, ids):
        """nodes are those that send; ids are the TransportIDs of all ports that may be named, by name."""
        self.random = random
        self.nodes = nodes
        self.ids = ids

    def draw(self, state):
        """The next command, and the node that sends it."""
        kind = self.random.choices((self.draw_out, self.draw_in, self.draw_reserve, self.draw_probe), (55, 10, 8, 27))
        return kind[0](state)

    def likely(self, percent):
        return self.random.randrange(100) < percent

    def draw_out(self, state):
        weights = {
            REGISTER: 20,
            RESERVE: 20,
            RELEASE: 16,
            CLEAR: 4,
            PREEMPT: 16,
            PREEMPT_AND_ABORT: 8,
            REGISTER_AND_IGNORE: 12,
            REGISTER_AND_MOVE: 12,
            REPLACE_LOST_RESERVATION: 1,
            self.random.randrange(9, 32): 2,
        }
        out = self.random.choices(tuple(weights), tuple(weights.values()))[0]
        if out in (RELEASE, REGISTER_AND_MOVE) and state.type == 0 and self.likely(70):
            # There is nothing to release or to move yet.
            out = RESERVE
        node = self.random.choice(self.nodes)
        if out in (RELEASE, REGISTER_AND_MOVE) and self.likely(75):
            node = self.random.choice(sorted(state.holders & set(self.nodes)) or [node])
        keys = dict(state.keys)
        if node not in keys and self.likely(60):
            # Without a registration there is little to do.
            out = self.random.choice((REGISTER, REGISTER_AND_IGNORE))
        key = keys.get(node, 0) if self.likely(85) else self.random.choice((0, *KEYS))
        if self.is_preempt(out) and self.likely(60):
            action_key = self.random.choice(sorted(keys.values()) or [0])
        else:
            action_key = self.random.choice(KEYS) if self.likely(85) else 0
        kind = self.random.choice(TYPES) if self.likely(90) else self.random.randrange(16)
        if out == RELEASE and self.likely(70):
            kind = state.type
        if self.is_preempt(out) and self.likely(4):
            kind = action_key = 0
        more = {"aptpl": self.likely(15), "length": None if self.likely(95) else self.random.choice((0, 8, 23, 25, 48))}
        if out == REGISTER_AND_MOVE:
            more |= {
                "unreg": self.likely(40),
                "relative_target_port": 1 if self.likely(90) else self.random.choice((0, 9)),
                "ids": self.draw_ids(1),
                "length": None,
            }
        else:
            more |= {"all_tg_pt": self.likely(6), "spec_i_pt": self.likely(25 if out == REGISTER else 3)}
            if more["spec_i_pt"] and out == REGISTER:
                more["ids"] = self.draw_ids(self.random.randrange(4))
                more["surplus"] = 20 if self.likely(15) else 0
        scope = 0 if self.likely(95) else self.random.randrange(1, 16)
        return node, persistent_reserve_out(out, scope, kind, key, action_key, **more)

    @staticmethod
    def is_preempt(out):
        return out in (PREEMPT, PREEMPT_AND_ABORT)

    def draw_ids(self, count):
        """TransportIDs of initiator ports, some of them wrong."""
        # Those of the senders half of the time.
        known = tuple(self.ids.items())
        ids = [self.random.choice(known[: len(self.nodes)] if self.likely(50) else known) for _ in range(count)]
        if ids and self.likely(10):
            ids[self.random.randrange(count)] = (MALFORMED, self.random.choice(MALFORMED_IDS))
        return tuple(ids)

    def draw_in(self, _state):
        question = self.random.randrange(4) if self.likely(90) else self.random.randrange(4, 32)
        lengths = (0, 1, 4, 7, 8, 9, 16, 22, 23, 24, 32, 100, 255, 4096)
        length = 512 if self.likely(40) else self.random.choice(lengths)
        return self.random.choice(self.nodes), persistent_reserve_in(question, length)

    def draw_reserve(self, _state):
        code, name, length = self.random.choice(
            ((0x16, "RESERVE(6)", 6), (0x17, "RELEASE(6)", 6), (0x56, "RESERVE(10)", 10), (0x57, "RELEASE(10)", 10))
        )
        # LONGID and 3RDPTY of the long ones, EXTENT and 3RDPTY of the short ones.
        bits = 0 if self.likely(90) else self.random.choice((0x10, 0x02) if length == 10 else (0x10, 0x01))
        name += f" with {bits:02x}h" if bits else ""
        return self.random.choice(self.nodes), Command(name, bytes([code, bits]).ljust(length, b"\0"))

    def draw_probe(self, _state):
        return self.random.choice(self.nodes), probe(*self.random.choice(PROBES))
