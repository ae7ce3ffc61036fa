"""Digests of blocks: the same however the bytes arrive."""

import itertools

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tciafs.content.blocks import BLOCK_BYTES, DIGEST_BYTES, Digests, block_count, blocks_of, is_whole

CONTENT = bytes(range(256)) * (2 * BLOCK_BYTES // 256) + b"the rest"
BORDERS = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, len(CONTENT)]


def expected(content):
    blocks = [content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES)]
    return b"".join(xxhash.xxh3_128_digest(block) for block in blocks)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(st.sampled_from(BORDERS), st.integers(0, len(CONTENT))),
    st.lists(st.one_of(st.sampled_from(BORDERS), st.integers(0, len(CONTENT))), max_size=6),
)
def test_digests_do_not_depend_on_the_pieces_in_which_bytes_arrive(size, cuts):
    content = CONTENT[:size]
    places = [0, *sorted(cut for cut in cuts if cut <= size), size]
    digests = Digests()
    for start, end in itertools.pairwise(places):
        digests.update(content[start:end])
    assert digests.finish() == expected(content)


@pytest.mark.parametrize("size", BORDERS)
def test_each_block_is_whole_by_its_own_digest_only(size):
    digests = expected(CONTENT[:size])
    assert len(digests) == block_count(size) * DIGEST_BYTES
    for number in range(block_count(size)):
        block = CONTENT[:size][number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
        assert is_whole(block, number, digests)
        assert not is_whole(block[:-1], number, digests)
        assert not is_whole(bytes([block[0] ^ 1]) + block[1:], number, digests)
    assert not is_whole(b"", block_count(size), digests)  # no digest is no proof


def test_an_empty_object_has_no_blocks():
    assert Digests().finish() == b""
    assert block_count(0) == 0
    assert list(blocks_of(0, 0)) == []


@given(st.integers(0, 9 * BLOCK_BYTES), st.integers(0, 9 * BLOCK_BYTES))
def test_a_range_touches_the_blocks_that_its_bytes_lie_in(offset, size):
    touched = blocks_of(offset, size)
    if size:
        assert (touched[0], touched[-1]) == (offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES)
    else:
        assert len(touched) == 0
