"""Scheduling decisions without a cluster: events in, assignments out; the test sets the clock."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcai_ray.cluster.ledger import RESIZE_S, ActorLedger, BlockLedger, TaskLedger

HEDGE_S = 10.0


def new_ledger(ids, *, actors=(), blocks_per_actor=2, wanted=lambda: 0, max_lost=100):
    """A ledger whose `actors` are up."""
    blocks = BlockLedger(iter(ids), hedge_s=HEDGE_S)
    ledger = ActorLedger(blocks, wanted, blocks_per_actor=blocks_per_actor, max_lost=max_lost)
    for actor in actors:
        add(ledger, actor)
    return ledger


def add(ledger, actor):
    ledger.request(actor)
    ledger.start(actor)


def ids_of(assigned):
    return [block_id for _, block_id in assigned]


def test_blocks_are_assigned_in_order_and_no_actor_gets_more_than_its_share():
    ledger = new_ledger(range(9), actors="ab", blocks_per_actor=2)
    assert ledger.assign(0) == [("a", 0), ("a", 1), ("b", 2), ("b", 3)]
    assert ledger.assign(0) == []


def test_the_least_loaded_actor_is_filled_first():
    ledger = new_ledger(range(9), actors="ab", blocks_per_actor=2)
    ledger.assign(0)
    for block_id in (2, 3):
        ledger.answer("b", block_id)
    ledger.answer("a", 0)
    assert ledger.assign(0) == [("b", 4), ("b", 5), ("a", 6)]


def test_an_actor_gets_work_only_once_it_is_up():
    ledger = new_ledger(range(9))
    ledger.request("a")
    assert ledger.assign(0) == []
    assert (ledger.num_up, ledger.num_starting) == (0, 1)
    ledger.start("a")
    assert ids_of(ledger.assign(0)) == [0, 1]
    assert (ledger.num_up, ledger.num_starting) == (1, 0)


def test_a_pause_of_the_ids_ends_the_turn_and_they_are_asked_for_again_in_the_next():
    ledger = new_ledger([0, None, 1, None, None, 2], actors="ab")
    turns = [ids_of(ledger.assign(0)) for _ in range(4)]
    assert turns == [[0], [1], [], [2]]


def test_it_is_done_when_the_ids_are_exhausted_and_every_block_is_answered():
    ledger = new_ledger([0, 1], actors="ab")
    assert not ledger.is_done
    ledger.assign(0)
    ledger.answer("a", 0)
    assert not ledger.is_done
    ledger.answer("a", 1)
    assert ledger.is_done


def test_ids_that_only_pause_are_not_exhausted():
    ledger = new_ledger([0, None, None, 1], actors="a")
    ledger.assign(0)
    ledger.answer("a", 0)
    ledger.assign(0)
    assert not ledger.is_done


def test_a_block_is_hedged_after_its_deadline_and_not_before():
    ledger = new_ledger([0], actors="a", blocks_per_actor=1)
    ledger.assign(0)
    add(ledger, "b")
    assert ledger.assign(HEDGE_S) == []
    assert ledger.assign(HEDGE_S + 0.1) == [("b", 0)]


def test_a_block_is_hedged_once_per_deadline():
    ledger = new_ledger([0], actors="abc", blocks_per_actor=1)
    ledger.assign(0)
    turns = [ids_of(ledger.assign(now)) for now in (11, 12, 20.9, 21.1, 22)]
    assert turns == [[0], [], [], [0], []]


def test_the_deadline_of_a_block_begins_when_it_is_assigned():
    ledger = new_ledger([0], actors="a", blocks_per_actor=1)
    ledger.assign(5)
    add(ledger, "b")
    assert ledger.assign(5 + HEDGE_S) == []
    assert ledger.assign(5.1 + HEDGE_S) == [("b", 0)]


def test_a_lost_block_keeps_its_deadline():
    ledger = new_ledger([0], actors="ab", blocks_per_actor=1)
    ledger.assign(0)
    ledger.lose("a", 0)
    assert ledger.assign(5) == [("b", 0)]
    add(ledger, "c")
    assert ledger.assign(HEDGE_S + 0.1) == [("c", 0)]


def test_late_blocks_are_hedged_one_per_turn_the_oldest_first():
    ledger = new_ledger([0, 1], actors="abcd", blocks_per_actor=1)
    ledger.assign(0)
    assert [ids_of(ledger.assign(11)) for _ in range(3)] == [[0], [1], []]


@pytest.mark.parametrize("happens", ["another deadline passes", "its actor is lost"])
def test_a_late_block_that_waits_in_line_is_there_only_once(happens):
    ledger = new_ledger([0], actors="a", blocks_per_actor=1)
    ledger.assign(0)
    ledger.assign(HEDGE_S + 1)
    if happens == "another deadline passes":
        ledger.assign(2 * HEDGE_S + 2)
    else:
        ledger.lose("a", 0)
    add(ledger, "b")
    add(ledger, "c")
    assert ledger.assign(2 * HEDGE_S + 2) == [("b", 0)]


def test_a_late_block_comes_before_those_of_lost_actors_and_new_ones():
    ledger = new_ledger(range(9), actors="ab", blocks_per_actor=1)
    ledger.assign(0)
    ledger.lose("b", 1)
    add(ledger, "c")
    add(ledger, "d")
    add(ledger, "e")
    assert ids_of(ledger.assign(HEDGE_S + 1)) == [0, 1, 2]


def test_the_first_answer_wins_and_the_second_is_counted_and_dropped():
    ledger = new_ledger([0], actors="ab", blocks_per_actor=1)
    ledger.assign(0)
    ledger.assign(HEDGE_S + 1)
    assert ledger.answer("b", 0)
    assert not ledger.answer("a", 0)
    assert (ledger.received, ledger.repeated) == (2, 1)


def test_a_block_that_is_answered_while_it_waits_in_line_is_not_computed_again():
    ledger = new_ledger(range(3), actors="a", blocks_per_actor=1)
    ledger.assign(0)
    assert ledger.assign(HEDGE_S + 1) == []  # block 0 is late, but nobody is free
    assert ledger.answer("a", 0)
    assert ids_of(ledger.assign(HEDGE_S + 1)) == [1]


def test_the_blocks_of_a_lost_actor_come_first_and_in_order():
    ledger = new_ledger(range(9), actors="ab")
    ledger.assign(0)
    assert ledger.lose("a", 0)
    ledger.lose("a", 1)
    add(ledger, "c")
    ledger.answer("b", 2)
    assert ledger.assign(0) == [("c", 0), ("c", 1), ("b", 4)]


def test_a_loss_is_reported_by_each_call_and_counted_once():
    ledger = new_ledger(range(9), actors="a")
    ledger.assign(0)
    assert [ledger.lose("a", 0), ledger.lose("a", 1)] == [True, False]
    assert (ledger.lost, ledger.num_up) == (1, 0)


def test_a_late_answer_of_a_lost_actor_is_delivered_and_gives_nobody_more_work():
    ledger = new_ledger(range(9), actors="ab", blocks_per_actor=1)
    ledger.assign(0)
    ledger.lose("a", None)
    assert ledger.answer("a", 0)
    assert ledger.assign(0) == []
    assert ledger.num_up == 1


def test_a_block_that_was_answered_is_not_computed_again_when_its_other_actor_is_lost():
    ledger = new_ledger([0], actors="ab", blocks_per_actor=1)
    ledger.assign(0)
    ledger.assign(HEDGE_S + 1)
    ledger.answer("b", 0)
    ledger.lose("a", 0)
    add(ledger, "c")
    assert ledger.assign(0) == []
    assert ledger.is_done


def test_an_actor_lost_while_it_starts_is_replaced_too():
    ledger = new_ledger(range(9))
    ledger.request("a")
    assert ledger.lose("a", None)
    assert (ledger.lost, ledger.num_starting) == (1, 0)


@pytest.mark.parametrize(("losses", "too_many"), [(3, False), (4, True)])
def test_more_losses_than_the_maximum_are_too_many(losses, too_many):
    ledger = new_ledger(range(9), actors=range(losses), max_lost=3)
    for actor in range(losses):
        ledger.lose(actor, None)
    assert ledger.has_lost_too_many == too_many


def test_missing_actors_are_requested_and_those_starting_count():
    ledger = new_ledger(range(9), actors="a", wanted=lambda: 4)
    ledger.request("b")
    assert ledger.resize(0) == (2, [])


def test_of_too_many_actors_those_starting_go_the_oldest_first_and_none_that_is_up():
    wanted = 4
    ledger = new_ledger(range(9), actors="a", wanted=lambda: wanted)
    for actor in "bcd":
        ledger.request(actor)
    wanted = 2
    assert ledger.resize(0) == (0, ["b", "c"])
    wanted = 0
    assert ledger.resize(RESIZE_S) == (0, ["d"])
    assert (ledger.actors, ledger.num_up) == (["a"], 1)


def test_how_many_actors_are_wanted_is_asked_every_two_seconds():
    asked = []
    ledger = new_ledger(range(9), wanted=lambda: asked.append("asked") or 1)
    for now in (0.0, 0.5, RESIZE_S - 0.1, RESIZE_S, RESIZE_S + 1):
        ledger.resize(now)
    assert len(asked) == 2


class World:
    """A cluster that only the test moves; whatever it does, every call ends in some turn."""

    def __init__(self, ids, blocks_per_actor):
        self.wanted, self.now, self.blocks_per_actor = 2, 0.0, blocks_per_actor
        self.ledger = new_ledger(
            ids, wanted=lambda: self.wanted, blocks_per_actor=blocks_per_actor, max_lost=10**6
        )
        self.names = itertools.count()
        self.calls, self.killed, self.delivered = [], set(), []

    def request(self):
        actor = next(self.names)
        self.ledger.request(actor)
        self.calls.append((actor, None))

    def turn(self):
        missing, surplus = self.ledger.resize(self.now)
        for _ in range(missing):
            self.request()
        self.calls = [call for call in self.calls if call[0] not in surplus]
        assigned = self.ledger.assign(self.now)
        assert all(0 <= n <= self.blocks_per_actor for n in self.ledger._in_flight.values())
        self.calls += assigned

    def wait(self, seconds):
        self.now += seconds

    def want(self, count):
        self.wanted = count

    def kill(self, number):
        if self.ledger.actors:
            self.killed.add(self.ledger.actors[number % len(self.ledger.actors)])

    def end_call(self, number, was_late):
        """A call is answered; that of a killed actor fails, unless its answer was only late."""
        if not self.calls:
            return
        actor, block_id = self.calls.pop(number % len(self.calls))
        if actor in self.killed and (block_id is None or not was_late):
            if self.ledger.lose(actor, block_id):
                self.request()
        elif block_id is None:
            self.ledger.start(actor)
        elif self.ledger.answer(actor, block_id):
            self.delivered.append(block_id)

    def finish(self):
        self.wanted = 2
        for _ in range(1000):
            if self.ledger.is_done:
                return
            self.wait(RESIZE_S)
            self.turn()
            for _ in list(self.calls):
                self.end_call(0, was_late=False)
        pytest.fail("never done")


NUMBER = st.integers(0, 30)
EVENTS = st.one_of(
    st.tuples(st.just("turn")),
    st.tuples(st.just("end_call"), NUMBER, st.booleans()),
    st.tuples(st.just("kill"), NUMBER),
    st.tuples(st.just("wait"), st.floats(0.1, 2 * HEDGE_S)),
    st.tuples(st.just("want"), st.integers(0, 5)),
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(st.one_of(st.none(), st.just("id")), max_size=20),
    st.integers(1, 3),
    st.lists(EVENTS, max_size=150),
)
def test_whatever_happens_every_block_is_delivered_exactly_once(pattern, share, events):
    ids = [None if entry is None else number for number, entry in enumerate(pattern)]
    world = World(ids, share)
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.finish()
    assert sorted(world.delivered) == [number for number in ids if number is not None]
    assert world.ledger.received == len(world.delivered) + world.ledger.repeated


def test_results_leave_in_order_whichever_task_finishes_first():
    ledger = TaskLedger([1] * 4)
    assert list(ledger.submit(4)) == [0, 1, 2, 3]
    left = []
    for number in (2, 0, 3, 1):
        ledger.finish(number, f"result {number}")
        left.append(list(ledger.results()))
    assert left == [[], ["result 0"], [], ["result 1", "result 2", "result 3"]]
    assert ledger.is_done


def test_no_more_tasks_are_submitted_than_may_be_ahead_of_a_slow_one():
    ledger = TaskLedger([1] * 100)
    assert list(ledger.submit(3)) == [0, 1, 2]
    for number in (1, 2):
        ledger.finish(number, None)
        assert list(ledger.results()) == []
        assert list(ledger.submit(3)) == []  # their results are early, so they are still ahead
    ledger.finish(0, None)
    assert len(list(ledger.results())) == 3
    assert list(ledger.submit(3)) == [3, 4, 5]


def test_a_smaller_limit_submits_nothing_until_enough_results_have_left():
    ledger = TaskLedger([1] * 100)
    ledger.submit(4)
    ledger.finish(0, None)
    list(ledger.results())
    assert list(ledger.submit(2)) == []
    assert list(ledger.submit(4)) == [4]


def test_progress_counts_finished_tasks_and_their_units_early_ones_too():
    ledger = TaskLedger([3, 4, 5])
    ledger.submit(3)
    ledger.finish(1, None)
    assert (ledger.num_finished, ledger.units_done) == (1, 4)
    ledger.finish(0, None)
    list(ledger.results())
    assert (ledger.num_finished, ledger.units_done) == (2, 7)
    assert not ledger.is_done


@given(st.integers(1, 5), st.permutations(range(12)))
def test_in_whatever_order_tasks_finish_every_result_leaves_once_and_in_order(ahead, order):
    ledger, in_flight, left = TaskLedger([1] * 12), set(), []
    while not ledger.is_done:
        in_flight |= set(ledger.submit(ahead))
        assert len(in_flight) <= ahead
        first = min(in_flight, key=order.index)
        in_flight.remove(first)
        ledger.finish(first, first)
        left += ledger.results()
    assert left == list(range(12))
