"""All of the kernel's requests that have come are taken at once: each by one worker, none waits."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from tciafs.filesystem.session import _MOST_IN_A_TURN, _Intake


@pytest.fixture
def requests():
    """Yield two ends: one byte sent is one request to be taken at the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def test_what_has_come_is_taken_without_a_turn_of_others(requests, autojump_clock):
    ours, theirs = requests
    turns: list[None] = []

    async def other():
        turns.append(None)

    intake = _Intake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(_MOST_IN_A_TURN):
            theirs.send(b"r")
            await intake.wait_readable(ours.fileno())
            ours.recv(1)
        assert not turns
        for _ in range(2):  # the other's turn may come after this one's
            theirs.send(b"r")
            await intake.wait_readable(ours.fileno())
            ours.recv(1)
            intake._in_this_turn = _MOST_IN_A_TURN
        assert turns, "a kernel that goes on asking keeps all others waiting"


async def test_each_request_is_taken_once_while_all_who_took_one_are_still_at_it(requests):
    ours, theirs = requests
    intake = _Intake()
    taken: list[bytes] = []

    async def work():
        while True:
            await intake.wait_readable(ours.fileno())
            taken.append(ours.recv(1))  # BlockingIOError if another had it
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(work)
        for burst in (b"a", b"bcd", b"efghi"):
            await trio.testing.wait_all_tasks_blocked()
            for each in burst:
                theirs.send(bytes([each]))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert b"".join(taken) == b"abcdefghi"


@pytest.mark.parametrize("have_come", [0, 2])
async def test_closing_ends_all_who_wait_and_all_who_come_to_wait(requests, have_come):
    ours, theirs = requests
    intake = _Intake()
    ended: list[None] = []

    async def work():
        with pytest.raises(trio.ClosedResourceError):
            await intake.wait_readable(ours.fileno())
        ended.append(None)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(have_come):
                theirs.send(b"r")
            intake.notify_closing(ours.fileno())
        await work()
    assert len(ended) == 4
