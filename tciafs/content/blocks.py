"""An object as blocks of 4 MiB, each with a digest by which damage on disk is found: no I/O."""

from __future__ import annotations

import xxhash

BLOCK_BYTES = 4 << 20
DIGEST_BYTES = 16
MISSING = bytes(DIGEST_BYTES)  # stands for the digest of a block that is not there


class Digests:
    """The digests of an object's blocks, made while its bytes arrive."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._block = xxhash.xxh3_128()
        self._filled = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes of the object."""
        rest = memoryview(data)
        while rest:
            part = rest[: BLOCK_BYTES - self._filled]
            self._block.update(part)
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == BLOCK_BYTES:
                self._end_block()

    def finish(self) -> bytes:
        """Return the digests of all blocks in a row; nothing may follow."""
        if self._filled:
            self._end_block()
        return bytes(self._done)

    def _end_block(self) -> None:
        self._done += self._block.digest()
        self._block = xxhash.xxh3_128()
        self._filled = 0


def digest_of_block(block: bytes) -> bytes:
    """Return the digest of a block."""
    return xxhash.xxh3_128_digest(block)


def is_whole(block: bytes, number: int, digests: bytes) -> bool:
    """Tell whether the bytes of block `number` are those that were once verified."""
    return digest_of_block(block) == _digest(number, digests)


def is_there(number: int, digests: bytes) -> bool:
    """Tell whether block `number` has a digest."""
    return _digest(number, digests) not in (MISSING, b"")


def put_digest(digests: bytes, number: int, digest: bytes) -> bytes:
    """Return the digests with another one for block `number`."""
    return digests[: number * DIGEST_BYTES] + digest + digests[(number + 1) * DIGEST_BYTES :]


def bytes_there(digests: bytes, size: int) -> int:
    """Return how many bytes of an object the blocks have that are there."""
    return sum(len(span_of(number, size)) for number in range(block_count(size)) if is_there(number, digests))


def span_of(number: int, size: int) -> range:
    """Return the bytes that block `number` of an object stands for."""
    return range(number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, size))


def block_count(size: int) -> int:
    """Return of how many blocks an object of `size` bytes consists."""
    return -(-size // BLOCK_BYTES)


def blocks_of(offset: int, size: int) -> range:
    """Return the numbers of the blocks that a range of bytes touches."""
    return range(offset // BLOCK_BYTES, block_count(offset + size)) if size else range(0)


def _digest(number: int, digests: bytes) -> bytes:
    return digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
