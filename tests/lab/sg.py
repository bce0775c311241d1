"""SCSI commands through the kernel's generic driver, /dev/sgN."""

import ctypes
import fcntl
from typing import NamedTuple

SG_IO = 0x2285
NO_DATA, TO_DEVICE, FROM_DEVICE = -1, -2, -3
TIMEOUT_MS = 20_000

GOOD = 0x00
CHECK_CONDITION = 0x02
RESERVATION_CONFLICT = 0x18


class SgIoHdr(ctypes.Structure):
    """struct sg_io_hdr of <scsi/sg.h>."""

    _fields_ = [
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    ]


class Answer(NamedTuple):
    """What the target answered."""

    status: int
    # Sense key, additional sense code and its qualifier; with CHECK CONDITION only.
    sense: tuple[int, int, int] | None
    # What was transferred to the initiator.
    data: bytes


class NotAnswered(Exception):
    """The command was not answered by the target: it was lost, or the transport failed."""


def send(device, cdb, data_out=b"", data_in_length=0):
    """Sends a command to an open device, with data one way or none. Returns its Answer."""
    command = ctypes.create_string_buffer(cdb, len(cdb))
    sense = ctypes.create_string_buffer(64)
    length = len(data_out) or data_in_length
    data = ctypes.create_string_buffer(data_out, len(data_out)) if data_out else ctypes.create_string_buffer(length)
    direction = NO_DATA if length == 0 else TO_DEVICE if data_out else FROM_DEVICE
    header = SgIoHdr(
        interface_id=ord("S"),
        dxfer_direction=direction,
        cmd_len=len(cdb),
        mx_sb_len=len(sense),
        dxfer_len=length,
        dxferp=ctypes.addressof(data),
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=TIMEOUT_MS,
    )
    fcntl.ioctl(device, SG_IO, header)
    if header.host_status != 0:
        raise NotAnswered(f"{cdb.hex(' ')}: host status {header.host_status:02x}h")
    found = sense_codes(sense.raw[: header.sb_len_wr]) if header.status == CHECK_CONDITION else None
    received = data.raw[: length - header.resid] if direction == FROM_DEVICE else b""
    return Answer(header.status, found, received)


def sense_codes(sense):
    """Sense key, additional sense code and qualifier of sense data in either format; zeros where it is cut."""
    sense = sense.ljust(14, b"\0")
    if sense[0] & 0x7F in (0x72, 0x73):
        return sense[1] & 0x0F, sense[2], sense[3]
    return sense[2] & 0x0F, sense[12], sense[13]
