"""What PERSISTENT RESERVE IN tells of a logical unit, as a value (SPC-4 r37, PERSISTENT RESERVE IN)."""

import struct
from dataclasses import dataclass, field


@dataclass(frozen=True)
class State:
    """The reservations of a logical unit. What does not take part in comparisons is for those who explain differences."""

    # Initiator ports, by the names that they have here, and their keys, in the order of registration.
    keys: tuple[tuple[str, int], ...] = ()
    type: int = 0
    holders: frozenset[str] = frozenset()
    aptpl: bool = False
    # Who has made a RESERVE(6) or RESERVE(10), if anybody has.
    reserved_by: str | None = None
    generation: int = field(default=0, compare=False)
    # Ports that are said to be registered with ALL_TG_PT.
    all_tg_pt: frozenset[str] = field(default=frozenset(), compare=False)
    # Whose RESERVE or PREEMPT made the reservation.
    creator: str | None = field(default=None, compare=False)

    def key(self, port):
        """The port's key; zero if it is not registered."""
        return dict(self.keys).get(port, 0)

    def __str__(self):
        words = [f"{port}={key:016x}"[:-15] + ("*" if port in self.holders else "") for port, key in self.keys]
        words.append(f"type {self.type}" if self.type else "no reservation")
        words.extend("aptpl" for _ in range(self.aptpl))
        words.extend(f"reserved by {self.reserved_by}" for _ in range(self.reserved_by is not None))
        return " ".join(words)


def parse_full_status(data, name_of):
    """The State, but for APTPL, that READ FULL STATUS tells. name_of names the initiator port of a TransportID."""
    generation, length = struct.unpack_from(">II", data)
    keys, holders, all_tg_pt, kind, at = [], set(), set(), 0, 8
    while at < 8 + length:
        key, flags, scope_type, id_length = struct.unpack_from(">Q4xBB6xI", data, at)
        port = name_of(data[at + 24 : at + 24 + id_length])
        keys.append((port, key))
        if flags & 0x01:
            holders.add(port)
            kind = scope_type
        if flags & 0x02:
            all_tg_pt.add(port)
        at += 24 + id_length
    return State(tuple(keys), kind, frozenset(holders), generation=generation, all_tg_pt=frozenset(all_tg_pt))


def parse_transport_id(data):
    """The name and, if it has one, the ISID of an iSCSI TransportID."""
    text = data[4:].split(b"\0")[0].decode()
    name, _, isid = text.partition(",i,0x")
    return name, int(isid, 16) if isid else None
