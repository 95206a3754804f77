"""Pairing by stamp: nearest within the tolerance, bounded, and everything accounted for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mastsam_ros.ros.sync import StampSync


def test_pairs_equal_and_near_stamps_in_either_order():
    sync = StampSync(queue=4, tolerance_ns=5)
    assert sync.add_first(100, "image 100") is None
    assert sync.add_second(103, "depth 103") == ("image 100", "depth 103")
    assert sync.add_second(200, "depth 200") is None
    assert sync.add_first(200, "image 200") == ("image 200", "depth 200")
    assert (sync.unpaired_first, sync.unpaired_second, sync.waiting) == (0, 0, 0)


def test_does_not_pair_beyond_the_tolerance():
    sync = StampSync(queue=4, tolerance_ns=5)
    sync.add_first(100, "image")
    assert sync.add_second(106, "depth") is None
    assert sync.waiting == 1


def test_takes_the_nearest_and_counts_the_older_ones():
    sync = StampSync(queue=8, tolerance_ns=50)
    for stamp in (100, 200, 290):
        sync.add_first(stamp, stamp)
    assert sync.add_second(300, "depth") == (290, "depth")
    assert sync.unpaired_first == 2 and sync.waiting == 0


def test_queues_are_bounded_and_drops_are_counted():
    sync = StampSync(queue=3, tolerance_ns=0)
    for stamp in range(10):
        sync.add_first(stamp, stamp)
    assert sync.waiting == 3 and sync.unpaired_first == 7


def test_a_stamp_that_falls_empties_its_stream():
    sync = StampSync(queue=8, tolerance_ns=0)
    for stamp in (100, 101, 102):
        sync.add_first(stamp, stamp)
    sync.add_first(1, 1)
    assert sync.waiting == 1 and sync.unpaired_first == 3
    assert sync.add_second(1, "depth") == (1, "depth")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=80), st.integers(1, 5), st.integers(0, 8))
def test_every_message_is_paired_waiting_or_counted(messages, queue, tolerance):
    sync = StampSync(queue, tolerance)
    pairs = []
    for number, (first, stamp) in enumerate(messages):
        pair = (sync.add_first if first else sync.add_second)(stamp, (number, stamp))
        if pair is not None:
            pairs.append(pair)
    assert all(abs(one[1] - other[1]) <= tolerance for one, other in pairs)
    numbers = [message[0] for pair in pairs for message in pair]
    assert len(numbers) == len(set(numbers))
    assert sum(first for first, _ in messages) == len(pairs) + sync.unpaired_first + sync.waiting
    assert sync.waiting <= queue
