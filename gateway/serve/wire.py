"""How a request and its answer travel between the ingress and a model's replica: bytes, packed once. Imports no ray."""

from __future__ import annotations

import msgspec

from gateway.types import Headers


class Call(msgspec.Struct, array_like=True, frozen=True):
    """One request for a model's app; the body is the client's, as it came."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes


class Head(msgspec.Struct, array_like=True, frozen=True):
    """How an answer begins."""

    status: int
    headers: Headers
    backend_s: float
    """Seconds that the backend's app took until it began to answer."""


_PACK = msgspec.msgpack.Encoder()
_CALL = msgspec.msgpack.Decoder(Call)
_HEAD = msgspec.msgpack.Decoder(Head)


def pack_call(call: Call) -> bytes:
    return _PACK.encode(call)


def unpack_call(data: bytes) -> Call:
    return _CALL.decode(data)


def pack_head(head: Head, body: bytes) -> bytes:
    """The head and the first of the body in one message: a whole answer needs no second one.

    Layout: length of the packed head (4 bytes, big-endian), the head, the body.
    """
    packed = _PACK.encode(head)
    return b"".join((len(packed).to_bytes(4, "big"), packed, body))


def unpack_head(data: bytes) -> tuple[Head, bytes]:
    end = 4 + int.from_bytes(data[:4], "big")
    return _HEAD.decode(data[4:end]), data[end:]
