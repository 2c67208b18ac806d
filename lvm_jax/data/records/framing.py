"""The frame of a record in a TFRecord file, and its CRCs, without TensorFlow.

A frame is `length uint64 | masked crc32c(length) uint32 | data | masked crc32c(data) uint32`, little-endian.
"""

import struct

import google_crc32c

from lvm_jax.data.records.example import CorruptRecord

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
MAX_RECORD_BYTES = 1 << 30
DATA_AT = _LENGTH.size + _CRC.size  # where the data begin in a frame
TAIL_BYTES = _CRC.size  # what follows the data
FRAME_BYTES = DATA_AT + TAIL_BYTES  # a frame around no data


def masked_crc(data: bytes) -> int:
    """CRC32C of `data`, masked as TFRecord does: a CRC over data that hold CRCs would be weak."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Puts a record into its frame."""
    length = _LENGTH.pack(len(data))
    return length + _CRC.pack(masked_crc(length)) + data + _CRC.pack(masked_crc(data))


def checked_length(head: bytes) -> int:
    """The bytes of data in the frame that begins with `head`, its first `DATA_AT` bytes.

    Raises:
      CorruptRecord: `head` is too short, or its CRC disagrees.
    """
    # The length has a CRC of its own: a damaged one would make the reader ask for any number of bytes.
    if len(head) != DATA_AT:
        raise CorruptRecord("the file ends within a length")
    if masked_crc(head[: _LENGTH.size]) != _CRC.unpack(head[_LENGTH.size :])[0]:
        raise CorruptRecord("the CRC of its length disagrees")
    return _LENGTH.unpack(head[: _LENGTH.size])[0]


def is_sound(data: bytes, tail: bytes) -> bool:
    """Whether the CRC at the end of a frame fits its data."""
    return tail == _CRC.pack(masked_crc(data))


def check_frame(framed: bytes) -> None:
    """Checks a whole frame.

    Raises:
      CorruptRecord: says which field is wrong.
    """
    length = checked_length(framed[:DATA_AT])
    if length != len(framed) - FRAME_BYTES:
        raise CorruptRecord(f"its length is {length}, its index says {len(framed) - FRAME_BYTES}")
    if not is_sound(framed[DATA_AT:-TAIL_BYTES], framed[-TAIL_BYTES:]):
        raise CorruptRecord(f"the CRC of its {length} bytes disagrees")
