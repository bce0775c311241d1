"""Where the kernel's emulation of reservations and tcmu-pr differ, each with the reason.

The kernel is Linux 6.1, with a fileio backstore. A difference that no entry covers fails the test, and so does an entry
that nothing falls under any more: so an entry says as narrowly as it can when it applies. kept_out, at the end, tells
what is not sent.
"""

from dataclasses import dataclass
from typing import Callable

from sg import GOOD, RESERVATION_CONFLICT
from streams import (
    ALL_REGISTRANTS,
    CLEAR,
    PREEMPT,
    PREEMPT_AND_ABORT,
    READ_FULL_STATUS,
    READ_KEYS,
    READ_RESERVATION,
    REGISTER,
    REGISTER_AND_MOVE,
    RELEASE,
    REPORT_CAPABILITIES,
    RESERVE,
    TYPES,
)

COMMUNICATION_FAILURE = (0x2, 0x08, 0x00)  # LOGICAL UNIT COMMUNICATION FAILURE
LIST_LENGTH = (0x5, 0x1A, 0x00)  # PARAMETER LIST LENGTH ERROR
IN_CDB = (0x5, 0x24, 0x00)  # INVALID FIELD IN CDB
IN_LIST = (0x5, 0x26, 0x00)  # INVALID FIELD IN PARAMETER LIST
WRONG_RELEASE = (0x5, 0x26, 0x04)  # INVALID RELEASE OF PERSISTENT RESERVATION

WRITE_EXCLUSIVE = (1, 5, 7)
EXCLUSIVE_ACCESS = (3, 6, 8)
REGISTRANTS = (5, 6, 7, 8)
# Everything that a PERSISTENT RESERVE OUT changes.
CHANGES = "registrations order generation reservation aptpl attention"


@dataclass(frozen=True)
class Difference:
    """What differs in which situation, and why."""

    name: str
    # Which of the aspects of a Case it explains.
    aspects: frozenset[str]
    lio: str
    ours: str
    # The standard's topic and what it says, or whose decision it is.
    why: str
    applies: Callable


def difference(name, aspects, *, lio, ours, why, applies):
    """An entry. One that explains generations does so only where tcmu-pr counts a command with GOOD once, and no other."""
    aspects = frozenset(aspects.split())

    def applies_and_counts(case):
        return applies(case) and ("generation" not in aspects or case.ours_counted == (case.ours.status == GOOD))

    return Difference(name, aspects, lio, ours, why, applies_and_counts)


def answers(case, lio, ours):
    """Whether the two answers were these: a status, or the codes of a CHECK CONDITION."""

    def is_answer(answer, wanted):
        return (answer.sense if isinstance(wanted, tuple) else answer.status) == wanted

    return is_answer(case.lio, lio) and is_answer(case.ours, ours)


def is_preempt_of_registrations(case):
    """Whether a PREEMPT aims at registrations and not at the reservation."""
    before, key = case.before, case.command.action_key
    return case.command.is_preempt and (before.type in ALL_REGISTRANTS or key != holders_key(before)) and key != 0


def holders_key(state):
    """The key of the holder, if that is one port; else zero, which is nobody's."""
    single = state.type not in ALL_REGISTRANTS and state.holders
    return state.key(next(iter(state.holders))) if single else 0


def initiator(port):
    """The initiator that a port of the parameter list belongs to: b of b, b2 and b-any."""
    return port[0] if port[0] in "abcd" and port[1:] in ("", "2", "-any") else port


def names_registered(case):
    """Whether the parameter list names an initiator, by whatever port, that is registered."""
    return any(case.before.key(initiator(port)) for port in case.command.ports)


def is_unknown(command):
    """Whether its service action is none that there is here."""
    return (command.out or 0) > REGISTER_AND_MOVE or (command.question or 0) > READ_FULL_STATUS


def is_reserved(state):
    return state.type != 0 or state.reserved_by is not None


def is_legacy(command):
    return command.name.startswith(("RESERVE(", "RELEASE("))


CONFLICTS_FIRST = "SAM-5, Status precedence: RESERVATION CONFLICT before CHECK CONDITION, but for unit attentions of resets"

ORDER = (
    difference(
        "a unit attention before a conflict",
        "precedence",
        lio="tells a pending unit attention before RESERVATION CONFLICT, and then nothing more",
        ours="RESERVATION CONFLICT, and the unit attention with the next command that gets through",
        why=CONFLICTS_FIRST,
        applies=lambda case: case.ours.status == RESERVATION_CONFLICT,
    ),
    difference(
        "the second of two unit attentions",
        "attention",
        lio="forgets what else is pending when it tells one",
        ours="tells one after the other",
        why="SAM-5, Unit attention condition: one that is pending stays so until it is told",
        applies=lambda case: all(
            case.lio_told.get(node, []) == told
            or (len(told) > 1 and node in case.lio_told and case.lio_told[node] == told[: len(case.lio_told[node])])
            for node, told in case.ours_told.items()
        )
        and case.lio_told.keys() == case.ours_told.keys(),
    ),
    difference(
        "TYPE before the conflict",
        "answer",
        lio="INVALID FIELD IN CDB",
        ours="RESERVATION CONFLICT: the key is not the sender's, or the reservation is another's",
        why=CONFLICTS_FIRST,
        applies=lambda case: case.command.out in (RESERVE, PREEMPT, PREEMPT_AND_ABORT)
        and case.command.type not in TYPES
        and answers(case, IN_CDB, RESERVATION_CONFLICT),
    ),
    difference(
        "SCOPE before the conflict",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="RESERVATION CONFLICT: nobody has the key to be preempted, or the holder wants another type",
        why=CONFLICTS_FIRST,
        applies=lambda case: case.command.out in (RESERVE, PREEMPT, PREEMPT_AND_ABORT)
        and case.command.scope != 0
        and answers(case, IN_LIST, RESERVATION_CONFLICT),
    ),
    difference(
        "SPEC_I_PT before the conflict",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="RESERVATION CONFLICT: the key is not the sender's, or the reservation is another's",
        why=CONFLICTS_FIRST,
        applies=lambda case: case.command.spec_i_pt
        and case.command.out != REGISTER
        and answers(case, IN_LIST, RESERVATION_CONFLICT),
    ),
    difference(
        "SPEC_I_PT before the length",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="PARAMETER LIST LENGTH ERROR",
        why="SPC-4 r37, PERSISTENT RESERVE OUT: a list that is not as long as it says tells nothing else; the order is ours",
        applies=lambda case: case.command.spec_i_pt and answers(case, IN_LIST, LIST_LENGTH),
    ),
    difference(
        "a conflict before the length",
        "answer",
        lio="RESERVATION CONFLICT, before it looks at the list",
        ours="PARAMETER LIST LENGTH ERROR",
        why="SPC-4 r37, PERSISTENT RESERVE OUT: without its list nobody knows the key that it shows; the order is ours",
        applies=lambda case: case.before.type != 0
        and not case.is_holder
        and case.command.list_length != 24
        and answers(case, RESERVATION_CONFLICT, LIST_LENGTH),
    ),
    difference(
        "an unknown service action",
        "answer",
        lio="RESERVATION CONFLICT, as it does not know that it may pass; or what is wrong with the list",
        ours="INVALID FIELD IN CDB",
        why="SPC-4 r37, SERVICE ACTION: what there is not is told as such; that it comes before all else is ours",
        applies=lambda case: is_unknown(case.command)
        and (
            (is_reserved(case.before) and answers(case, RESERVATION_CONFLICT, IN_CDB))
            or (case.command.list_length != 24 and answers(case, LIST_LENGTH, IN_CDB))
            or (case.command.spec_i_pt and answers(case, IN_LIST, IN_CDB))
        ),
    ),
    difference(
        "a unit attention and an unknown service action",
        "precedence",
        lio="tells the unit attention first",
        ours="INVALID FIELD IN CDB, and the unit attention with the next command",
        why="SAM-5, Unit attention condition: which CHECK CONDITION comes first; that what there is not is told first is ours",
        applies=lambda case: is_unknown(case.command) and case.ours.sense == IN_CDB,
    ),
    difference(
        "REGISTER AND MOVE before there is a reservation",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST, for the key or the port",
        ours="INVALID FIELD IN CDB: there is nothing to move",
        why="SPC-4 r37, Registering and moving the reservation: which error comes first is not said",
        applies=lambda case: case.command.out == REGISTER_AND_MOVE
        and case.before.type == 0
        and answers(case, IN_LIST, IN_CDB),
    ),
    difference(
        "REGISTER AND MOVE of what cannot be moved",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST, for the key or the port",
        ours="RESERVATION CONFLICT: another holds it, or all registrants do",
        why=CONFLICTS_FIRST,
        applies=lambda case: case.command.out == REGISTER_AND_MOVE
        and (case.before.type in ALL_REGISTRANTS or (case.before.type != 0 and not case.is_holder))
        and answers(case, IN_LIST, RESERVATION_CONFLICT),
    ),
    difference(
        "PREEMPT with TYPE and key both wrong",
        "answer",
        lio="INVALID FIELD IN CDB, for TYPE",
        ours="INVALID FIELD IN PARAMETER LIST, for key zero: TYPE does not matter before it is clear what is preempted",
        why="SPC-4 r37, Preempting: which error comes first is not said",
        applies=lambda case: case.command.is_preempt
        and case.command.type not in TYPES
        and case.command.action_key == 0
        and answers(case, IN_CDB, IN_LIST),
    ),
)

OUT = (
    difference(
        "an unregistered sender",
        "answer",
        lio="NOT READY, LOGICAL UNIT COMMUNICATION FAILURE",
        ours="RESERVATION CONFLICT",
        why="SPC-4 r37, PERSISTENT RESERVE OUT: who is not registered gets RESERVATION CONFLICT",
        applies=lambda case: case.command.out in (RESERVE, RELEASE, CLEAR, REGISTER_AND_MOVE)
        and case.key == 0
        and answers(case, COMMUNICATION_FAILURE, RESERVATION_CONFLICT),
    ),
    difference(
        "the generation after unregistering",
        "generation",
        lio="does not count it",
        ours="counts it",
        why="SPC-4 r37, READ KEYS: PRGENERATION counts each REGISTER that is processed, those that unregister too",
        applies=lambda case: case.command.is_register
        and case.command.action_key == 0
        and answers(case, GOOD, GOOD)
        and case.lio_counted == 0,
    ),
    difference(
        "an ALL_TG_PT registration through one port",
        f"answer {CHANGES}",
        lio="INVALID FIELD IN CDB, unless ALL_TG_PT comes again: it keeps one record for all ports",
        ours="GOOD, for this port",
        why="SPC-4 r37, Registering: what ALL_TG_PT has made are registrations like any others",
        applies=lambda case: case.command.is_register
        and case.node in case.before.all_tg_pt
        and not case.command.all_tg_pt
        and answers(case, IN_CDB, GOOD),
    ),
    difference(
        "SCOPE of RESERVE and PREEMPT",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="INVALID FIELD IN CDB",
        why="SPC-4 r37, PERSISTENT RESERVE OUT: SCOPE is a field of the CDB",
        applies=lambda case: case.command.out in (RESERVE, PREEMPT, PREEMPT_AND_ABORT)
        and case.command.scope != 0
        and answers(case, IN_LIST, IN_CDB),
    ),
    difference(
        "RELEASE with another TYPE",
        "answer",
        lio="RESERVATION CONFLICT",
        ours="INVALID RELEASE OF PERSISTENT RESERVATION",
        why="SPC-4 r37, Releasing: for the holder with the right key this is the answer to another TYPE or SCOPE",
        applies=lambda case: case.command.out == RELEASE
        and case.is_holder
        and case.command.type != case.before.type
        and answers(case, RESERVATION_CONFLICT, WRONG_RELEASE),
    ),
    difference(
        "RELEASE with another SCOPE",
        "answer",
        lio="RESERVATION CONFLICT to the holder, else GOOD",
        ours="INVALID FIELD IN CDB",
        why="SPC-4 r37, SCOPE: there is no other than that of the logical unit",
        applies=lambda case: case.command.out == RELEASE
        and case.command.scope != 0
        and answers(case, RESERVATION_CONFLICT if case.is_holder else GOOD, IN_CDB),
    ),
    difference(
        "RELEASE with the wrong key by one who does not hold it",
        "answer",
        lio="GOOD",
        ours="RESERVATION CONFLICT",
        why="SPC-4 r37, Releasing: it is to show the key that is registered",
        applies=lambda case: case.command.out == RELEASE
        and not case.is_holder
        and case.command.reservation_key != case.key != 0
        and answers(case, GOOD, RESERVATION_CONFLICT),
    ),
    difference(
        "APTPL after CLEAR",
        "aptpl",
        lio="off",
        ours="as it was",
        why="SPC-4 r37, PERSISTENT RESERVE OUT: CLEAR ignores APTPL; it is the last REGISTER that tells",
        applies=lambda case: case.command.out == CLEAR
        and answers(case, GOOD, GOOD)
        and case.before.aptpl
        and not case.lio_after.aptpl,
    ),
    difference(
        "PREEMPT of registrations with a wrong TYPE or SCOPE",
        f"answer {CHANGES}",
        lio="INVALID FIELD IN CDB for TYPE, INVALID FIELD IN PARAMETER LIST for SCOPE",
        ours="GOOD",
        why="SPC-4 r37, Removing registrations: TYPE and SCOPE are ignored where no reservation is made",
        applies=lambda case: is_preempt_of_registrations(case)
        and answers(case, IN_LIST if case.command.type in TYPES else IN_CDB, GOOD)
        and (case.command.scope != 0 or case.command.type not in TYPES),
    ),
    difference(
        "PREEMPT of key zero without a reservation",
        "answer",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="RESERVATION CONFLICT: no registration has that key",
        why="SPC-4 r37, Preempting: key zero is an error where one holds a reservation; without one, it is a key that nobody has",
        applies=lambda case: case.command.is_preempt
        and case.command.action_key == 0
        and case.before.type == 0
        and answers(case, IN_LIST, RESERVATION_CONFLICT),
    ),
    difference(
        "PREEMPT of a key under a reservation of all registrants",
        "registrations reservation attention",
        lio="takes the reservation over, if the key is that of the registrant it keeps as the holder",
        ours="removes the registrations with that key; the reservation stays while anybody is registered",
        why="SPC-4 r37, Preempting: with all registrants, only key zero preempts the reservation",
        applies=lambda case: is_preempt_of_registrations(case)
        and case.before.type in ALL_REGISTRANTS
        and case.command.action_key == case.before.key(case.before.creator)
        and answers(case, GOOD, GOOD),
    ),
    difference(
        "PREEMPT of the own key under a reservation of all registrants",
        "registrations reservation",
        lio="spares the sender",
        ours="removes the sender's registration too",
        why="SPC-4 r37, Removing registrations: those of all I_T nexuses with that key, without exception",
        applies=lambda case: is_preempt_of_registrations(case)
        and case.before.type in ALL_REGISTRANTS
        and case.command.action_key == case.key
        and answers(case, GOOD, GOOD)
        and case.lio_after.key(case.node) != 0,
    ),
)

PORTS = (
    difference(
        "the generation after SPEC_I_PT",
        "generation",
        lio="counts every registration",
        ours="counts the command",
        why="SPC-4 r37, READ KEYS: PRGENERATION counts commands",
        applies=lambda case: case.command.out == REGISTER and bool(case.command.ports) and answers(case, GOOD, GOOD),
    ),
    difference(
        "SPEC_I_PT with one port twice",
        "order",
        lio="registers it twice, and the sender, if it is listed",
        ours="registers it once",
        why="SPC-4 r37, Registering: an I_T nexus has one registration",
        applies=lambda case: case.command.out == REGISTER
        and len({case.node, *case.command.ports}) <= len(case.command.ports)
        and answers(case, GOOD, GOOD),
    ),
    difference(
        "SPEC_I_PT with a registered port",
        f"answer {CHANGES}",
        lio="GOOD, and leaves that one as it is",
        ours="INVALID FIELD IN PARAMETER LIST",
        why="SPC-4 r37, Registering: no key changes unseen; the standard has no row for it",
        applies=lambda case: case.command.out == REGISTER and names_registered(case) and answers(case, GOOD, IN_LIST),
    ),
    difference(
        "SPEC_I_PT and bytes behind the list",
        f"answer {CHANGES}",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="GOOD: they are ignored",
        why="SPC-4 r37, PERSISTENT RESERVE OUT: the length must reach to the end of the TransportIDs; more is not forbidden",
        applies=lambda case: case.command.out == REGISTER
        and case.command.spec_i_pt
        and case.command.list_length > 28 + int.from_bytes(case.command.data_out[24:28], "big")
        and answers(case, IN_LIST, GOOD),
    ),
    difference(
        "a port that no ACL names",
        f"answer {CHANGES}",
        lio="INVALID FIELD IN PARAMETER LIST",
        ours="GOOD",
        why="SPC-4 r37, Registering: the port need not be logged in, ever; who may come is not for this command to say",
        applies=lambda case: "stranger" in case.command.ports and answers(case, IN_LIST, GOOD),
    ),
    difference(
        "an initiator without an ISID",
        f"answer {CHANGES}",
        lio="INVALID FIELD IN PARAMETER LIST, or a registration that no session ever fits",
        ours="GOOD: registers the ports of that initiator",
        why="SPC-4 r37, TransportIDs, iSCSI: without an ISID it stands for all ports of the initiator",
        applies=lambda case: case.command.out == REGISTER
        and any(port.endswith("-any") for port in case.command.ports)
        and (answers(case, IN_LIST, GOOD) or answers(case, GOOD, GOOD)),
    ),
    difference(
        "another session of an initiator",
        f"answer {CHANGES}",
        lio="a port of its own",
        ours="the initiator's one port; so no destination for its own REGISTER AND MOVE",
        why="a limit of tcmu-pr: the kernel does not tell it the ISID, and who sends is known by name alone",
        applies=lambda case: "b2" in case.command.ports
        and (answers(case, GOOD, GOOD) or (case.node == "b" and answers(case, GOOD, IN_LIST))),
    ),
)

IN = (
    difference(
        "a short ALLOCATION LENGTH",
        "answer",
        lio="INVALID FIELD IN CDB",
        ours="GOOD, with so many bytes",
        why="SPC-4 r37, ALLOCATION LENGTH: it cuts the answer, and is no error",
        applies=lambda case: case.command.question is not None
        and case.command.data_in_length < 8
        and answers(case, IN_CDB, GOOD),
    ),
    difference(
        "keys that are cut",
        "data",
        lio="shows whole keys only",
        ours="cuts at the byte",
        why="SPC-4 r37, ALLOCATION LENGTH",
        applies=lambda case: case.command.question == READ_KEYS
        and case.command.data_in_length < 8 + 8 * len(case.before.keys),
    ),
    difference(
        "a reservation that is cut",
        "data",
        lio="shows nothing of it below 22 bytes",
        ours="cuts at the byte",
        why="SPC-4 r37, ALLOCATION LENGTH",
        applies=lambda case: case.command.question == READ_RESERVATION
        and case.before.type != 0
        and case.command.data_in_length < 22,
    ),
    difference(
        "a full status that is cut",
        "data",
        lio="shows whole descriptors only, and counts only these in ADDITIONAL LENGTH",
        ours="cuts at the byte, and counts all",
        why="SPC-4 r37, ALLOCATION LENGTH, and READ FULL STATUS",
        applies=lambda case: case.command.question == READ_FULL_STATUS
        # A descriptor has no more than 24 bytes and a TransportID of 48 here.
        and case.command.data_in_length < 8 + 72 * len(case.before.keys),
    ),
    difference(
        "ALLOW COMMANDS",
        "data",
        lio="001b: TEST UNIT READY passes; of the others nothing is said",
        ours="100b: the others pass write exclusive too",
        why="SPC-4 r37, REPORT CAPABILITIES: it tells what the gate does",
        applies=lambda case: case.command.question == REPORT_CAPABILITIES
        and case.lio.data[3] & 0x70 == 0x10
        and case.lio.data[:3] + bytes([case.lio.data[3] & 0x8F | 0x40]) + case.lio.data[4:] == case.ours.data,
    ),
)

GATE = (
    difference(
        "READ CAPACITY under exclusive access",
        "answer",
        lio="RESERVATION CONFLICT",
        ours="GOOD",
        why="SBC-3, Reservations: READ CAPACITY is allowed under every type",
        applies=lambda case: case.command.name.startswith("READ CAPACITY")
        and case.before.type in EXCLUSIVE_ACCESS
        and not case.is_holder
        and answers(case, RESERVATION_CONFLICT, GOOD),
    ),
    difference(
        "SYNCHRONIZE CACHE under write exclusive",
        "answer",
        lio="GOOD, as it brings no data",
        ours="RESERVATION CONFLICT",
        why="SBC-3, Reservations: it conflicts as a write does",
        applies=lambda case: case.command.name.startswith("SYNCHRONIZE CACHE")
        and case.before.type in WRITE_EXCLUSIVE
        and case.key == 0
        and answers(case, GOOD, RESERVATION_CONFLICT),
    ),
    difference(
        "MODE SENSE by a registrant under exclusive access",
        "answer",
        lio="GOOD",
        ours="RESERVATION CONFLICT",
        why="SPC-4 r37, Commands allowed in the presence of reservations: exclusive access is the holder's alone",
        applies=lambda case: case.command.name.startswith("MODE SENSE")
        and case.before.type == 3
        and case.key != 0
        and not case.is_holder
        and answers(case, GOOD, RESERVATION_CONFLICT),
    ),
    difference(
        "what passes another's RESERVE",
        "answer",
        lio="RESERVATION CONFLICT to all but INQUIRY and RELEASE",
        ours="GOOD",
        why="SPC-2, Reservations: REQUEST SENSE and REPORT LUNS pass too, and by SBC READ CAPACITY",
        applies=lambda case: case.before.reserved_by not in (None, case.node)
        and case.command.name.startswith(("REQUEST SENSE", "REPORT LUNS", "READ CAPACITY"))
        and answers(case, RESERVATION_CONFLICT, GOOD),
    ),
    difference(
        "RESERVE and RELEASE by a registrant",
        "answer",
        lio="RESERVATION CONFLICT to whom it does not keep as the holder",
        ours="GOOD, and nothing",
        why="SPC-4 r37, Exceptions to SPC-2 RESERVE and RELEASE: registrants of such a reservation have the access they ask for",
        applies=lambda case: is_legacy(case.command)
        and case.before.type in REGISTRANTS
        and case.key != 0
        and answers(case, RESERVATION_CONFLICT, GOOD),
    ),
    difference(
        "RESERVE and RELEASE for another",
        "answer reserve",
        lio="takes 3RDPTY, LONGID and EXTENT for nothing",
        ours="INVALID FIELD IN CDB",
        why="SPC-2, RESERVE(10): they are optional; and a reservation for another must not become the sender's own",
        applies=lambda case: is_legacy(case.command)
        and " with " in case.command.name
        and (answers(case, GOOD, IN_CDB) or answers(case, RESERVATION_CONFLICT, IN_CDB)),
    ),
)

DIFFERENCES = ORDER + OUT + PORTS + IN + GATE


def kept_out(command, node, state, careful):
    """Why a command is not sent in this state, if it is not."""
    own = state.key(node)
    if command.is_preempt and own != 0 and command.reservation_key == own:
        if state.type in ALL_REGISTRANTS:
            # The kernel frees the registration that it keeps as the holder, and then takes the reservation from it.
            if command.action_key == 0 and node != state.creator and len(state.keys) > 1:
                return "PREEMPT of all registrants by another than the one that the kernel keeps as the holder"
        elif command.action_key == own and holders_key(state) != own:
            # It frees the sender's registration, and then gives back its reference to it.
            return "PREEMPT of the own registration"
    if command.out == REGISTER_AND_MOVE and any(port.endswith("-any") for port in command.ports):
        # It registers the initiator without an ISID, does not find that again, and goes on with nothing.
        return "REGISTER AND MOVE to an initiator without an ISID"
    if careful and command.out == REGISTER and command.spec_i_pt and command.ports:
        # It never lets go of the LUN of an initiator that it has registered so: the target stays until the next boot.
        return "SPEC_I_PT that registers"
    return None
