"""One task for a question however many ask it, and each who waits has a deadline of its own."""

import pytest
import trio
import trio.testing

from tciafs.archives.base import ArchiveError, BadAnswer, Overdue, Unavailable
from tciafs.flights import LIFETIME_SECONDS, Flight, Flights


@pytest.fixture
def flights(nursery) -> Flights[str]:
    return Flights(nursery)


class Work:
    """A task that ends when it is told to, and knows how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.may_end = trio.Event()

    async def __call__(self, flight: Flight[str]) -> str:
        self.begun += 1
        try:
            await self.may_end.wait()
        finally:
            self.ended += 1
        return f"result {self.begun}"


async def test_many_waiters_share_one_task(flights):
    work, results = Work(), []

    async def wait() -> None:
        results.append(await flights.join("key", "the question", work).result(10))

    async with trio.open_nursery() as waiters:
        for _ in range(5):
            waiters.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(flights) == 1
        work.may_end.set()
    assert results == ["result 1"] * 5
    assert work.begun == 1


async def test_two_keys_are_two_tasks_under_way_at_once(flights):
    first, second = Work(), Work()
    one, other = flights.join(("a", 1), "one", first), flights.join(("a", 2), "other", second)
    await trio.testing.wait_all_tasks_blocked()
    assert (first.begun, second.begun, len(flights)) == (1, 1, 2)
    second.may_end.set()
    assert await other.result(10) == "result 1"
    assert (one.is_done, other.is_done) == (False, True)
    first.may_end.set()
    assert await one.result(10) == "result 1"


async def test_a_key_is_free_again_after_a_result_and_after_an_error(flights):
    work = Work()
    work.may_end.set()
    assert await flights.join("key", "what", work).result(10) == "result 1"
    assert len(flights) == 0
    assert await flights.join("key", "what", work).result(10) == "result 2"

    async def fail(flight: Flight[str]) -> str:
        raise BadAnswer("no")

    with pytest.raises(BadAnswer):
        await flights.join("key", "what", fail).result(10)
    assert len(flights) == 0
    assert await flights.join("key", "what", work).result(10) == "result 3"


async def test_a_waiter_that_gives_up_leaves_the_task_running_and_the_next_one_joins_it(
    flights, autojump_clock
):
    work = Work()
    with pytest.raises(Overdue, match=r"^the question: no answer within 15 s$"):
        await flights.join("key", "the question", work).result(15)
    assert trio.current_time() == pytest.approx(15)
    assert (work.begun, work.ended, len(flights)) == (1, 0, 1)
    again = flights.join("key", "the question", work)
    work.may_end.set()
    assert await again.result(15) == "result 1"
    assert work.begun == 1


async def test_a_cancelled_waiter_leaves_the_task_running_for_the_others(flights, autojump_clock):
    work, results = Work(), []
    flight = flights.join("key", "what", work)

    async def wait() -> None:
        results.append(await flight.result(100))

    async with trio.open_nursery() as waiters:
        waiters.start_soon(wait)
        with trio.move_on_after(1) as scope:
            await flight.result(100)
        assert scope.cancelled_caught
        assert (work.ended, flight.is_done) == (0, False)
        work.may_end.set()
    assert results == ["result 1"]


async def test_a_result_is_had_without_waiting_even_when_patience_is_at_an_end(flights, autojump_clock):
    work = Work()
    work.may_end.set()
    flight = flights.join("key", "what", work)
    await trio.sleep(100)
    assert await flight.result(0) == "result 1"
    assert trio.current_time() == pytest.approx(100)


async def test_patience_counts_from_the_last_progress(flights, autojump_clock):
    async def trickle(flight: Flight[str]) -> str:
        for _ in range(4):
            await trio.sleep(8)
            flight.note_progress()
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(Overdue, match="no answer within 42 s"):
        await flights.join("key", "what", trickle).result(10)
    assert trio.current_time() == pytest.approx(4 * 8 + 10)


async def test_patience_of_a_late_joiner_counts_from_its_own_arrival(flights, autojump_clock):
    work = Work()
    flight = flights.join("key", "what", work)
    await trio.sleep(100)
    with pytest.raises(Overdue):
        await flight.result(10)
    assert trio.current_time() == pytest.approx(110)


async def test_the_limit_ends_the_wait_whatever_the_progress(flights, autojump_clock):
    async def trickle(flight: Flight[str]) -> str:
        while True:
            await trio.sleep(1)
            flight.note_progress()

    with pytest.raises(Overdue, match="no answer within 25 s"):
        await flights.join("key", "what", trickle).result(10, limit=25)
    assert trio.current_time() == pytest.approx(25)


async def test_a_task_ends_after_its_lifetime_and_its_waiters_are_told(flights, autojump_clock):
    work = Work()
    flight = flights.join("key", "the question", work)
    with pytest.raises(Unavailable, match=r"^the question: not done within 600 s$"):
        await flight.result(LIFETIME_SECONDS + 100)
    assert trio.current_time() == pytest.approx(600)
    assert (work.ended, len(flights)) == (1, 0)


async def test_an_error_of_the_archive_reaches_every_waiter(flights):
    release, errors = trio.Event(), []
    error = BadAnswer("the answer is wrong")

    async def fail(flight: Flight[str]) -> str:
        await release.wait()
        raise error

    async def wait() -> None:
        with pytest.raises(BadAnswer) as caught:
            await flights.join("key", "what", fail).result(10)
        errors.append(caught.value)

    async with trio.open_nursery() as waiters:
        for _ in range(3):
            waiters.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert errors == [error] * 3


@pytest.mark.alarming
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("oh"), "the question failed in a way that nobody foresaw"),
        (OSError(28, "No space left on device"), "the question: [Errno 28] No space left on device"),
    ],
)
async def test_an_unexpected_error_is_logged_once_and_reaches_the_waiters(flights, caplog, error, said):
    async def fail(flight: Flight[str]) -> str:
        await trio.lowlevel.checkpoint()
        raise error

    flight = flights.join("key", "the question", fail)
    for _ in range(2):
        with pytest.raises(type(error)):
            await flight.result(10)
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "tciafs.flights"] == [
        ("ERROR", said)
    ]
    assert len(flights) == 0


async def test_closing_releases_the_waiters_at_once(flights, autojump_clock):
    work, released_at = Work(), []
    flight = flights.join("key", "the question", work)

    async def wait() -> None:
        with pytest.raises(Unavailable, match=r"^the question: given up, since tciafs is ending$"):
            await flight.result(100)
        released_at.append(trio.current_time())

    async with trio.open_nursery() as waiters:
        waiters.start_soon(wait)
        waiters.start_soon(wait)
        await trio.sleep(3)
        flights.close()
    assert released_at == [pytest.approx(3)] * 2
    assert work.ended == 1
    assert len(flights) == 0


async def test_closing_releases_the_waiters_even_of_a_task_that_is_slow_to_end(flights, autojump_clock):
    async def stubborn(flight: Flight[str]) -> str:
        with trio.CancelScope(shield=True):  # as work in a thread is
            await trio.sleep(50)
        return "too late"

    flight = flights.join("key", "what", stubborn)
    await trio.sleep(1)
    flights.close()
    with pytest.raises(Unavailable, match="is ending"):
        await flight.result(100)
    assert trio.current_time() == pytest.approx(1)


async def test_after_closing_no_task_is_begun(flights):
    flights.close()
    began = []

    async def work(flight: Flight[str]) -> str:
        began.append(True)
        return "done"

    with pytest.raises(Unavailable, match="is ending"):
        await flights.join("key", "what", work).result(10)
    await trio.testing.wait_all_tasks_blocked()
    assert began == []
    assert len(flights) == 0


async def test_after_the_nursery_has_ended_a_question_is_still_answered_with_an_error():
    async with trio.open_nursery() as nursery:
        flights: Flights[str] = Flights(nursery)
        flights.close()
    with pytest.raises(Unavailable, match="is ending"):
        await flights.join("key", "what", Work()).result(10)


async def test_cancelling_the_nursery_releases_whoever_waits_elsewhere():
    work = Work()
    async with trio.open_nursery() as waiters, trio.open_nursery() as nursery:
        flight = Flights[str](nursery).join("key", "what", work)

        async def wait() -> None:
            with pytest.raises(ArchiveError, match="is ending"):
                await flight.result(100)

        waiters.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert work.ended == 1


async def test_a_task_that_only_queues_ends_with_its_last_waiter_where_that_is_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ended: list[str] = []

    async def queue(flight: Flight[None]) -> None:
        try:
            await trio.sleep(100)
        finally:
            ended.append("queued")

    async def arrive(flight: Flight[None]) -> None:
        flight.note_begun()
        flight.note_progress()
        await trio.sleep(100)
        ended.append("arrived")

    async with trio.open_nursery() as nursery:
        flights: Flights[None] = Flights(nursery, run_on_unbegun=False)
        for key, work in (("queued", queue), ("arriving", arrive)):
            flight = flights.join(key, key, work)
            with pytest.raises(Overdue):
                await flight.result(2)
            assert flight.is_done is (key == "queued")
        again = flights.join("queued", "queued", arrive)  # a new task, not the one that was given up
        await again.moved(1)
        assert not again.is_done
    assert ended == ["queued", "arrived", "arrived"]


async def test_whoever_waits_for_a_beginning_gets_it_or_an_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def work(flight: Flight[None]) -> None:
        await trio.sleep(3)
        flight.note_progress()
        await trio.sleep(100)

    async with trio.open_nursery() as nursery:
        flight = Flights[None](nursery).join("key", "work", work)
        with pytest.raises(Overdue):
            await flight.moved(2)
        await flight.moved(2)
        assert trio.current_time() == pytest.approx(3, abs=0.1)


async def test_whoever_is_given_up_is_told_why(flights, autojump_clock):
    async def silent(flight: Flight[str]) -> str:
        flight.note_begun()
        await trio.sleep(100)
        return "late"

    flight = flights.join("key", "the question", silent)
    await trio.sleep(3)
    flights.make_way()
    with pytest.raises(Unavailable, match=r"^the question: given up, since it made way for another$"):
        await flight.result(10)
    flights.close()
    with pytest.raises(Unavailable, match="made way"):
        await flight.result(10)


async def test_one_task_that_nobody_waits_for_makes_way(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(flight: Flight[None]) -> None:
        flight.note_begun()
        await trio.sleep(100)

    async def moving(flight: Flight[None]) -> None:
        flight.note_progress()
        await trio.sleep(100)

    async with trio.open_nursery() as nursery:
        flights: Flights[None] = Flights(nursery, run_on_unbegun=False)
        names = ("moving", "wanted", "left", "left too")
        begun = {name: flights.join(name, name, moving if name == "moving" else silent) for name in names}
        nursery.start_soon(begun["wanted"].result, 1000)
        await trio.sleep(1)
        flights.make_way()
        await trio.sleep(1)
        assert not any(flight.is_done for flight in begun.values())  # it may be about to speak
        await trio.sleep(1)
        flights.make_way()
        await trio.sleep(1)
        assert {name for name, flight in begun.items() if flight.is_done} == {"left"}
        flights.make_way()
        flights.make_way()
        await trio.sleep(1)
        assert {name for name, flight in begun.items() if flight.is_done} == {"left", "left too"}
        nursery.cancel_scope.cancel()
