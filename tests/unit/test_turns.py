"""Whose turn it is: nobody's folder keeps others waiting, and groups hold only what fits."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shared.jobs import turns


@dataclass(frozen=True)
class Row:
    pixels: int
    alone: bool = False


def test_the_first_picture_goes_alone_if_it_is_large_and_small_ones_go_together() -> None:
    large, small = Row(4_000_000), Row(100_000)
    assert turns.choose([large, small, small], 10**8, idle=False) == [large]
    assert turns.choose([small, small, large], 10**8, idle=False) == [small, small]


def test_a_picture_that_does_not_fit_waits_and_nobody_overtakes_it() -> None:
    assert turns.choose([Row(5_000_000), Row(1)], 4_999_999, idle=False) == []


def test_a_worker_that_does_nothing_takes_a_picture_of_any_size() -> None:
    assert turns.choose([Row(10**9)], 1, idle=True) == [Row(10**9)]


def test_what_must_run_alone_is_never_grouped() -> None:
    alone, small = Row(10, alone=True), Row(10)
    assert turns.choose([alone, small], 10**8, idle=True) == [alone]
    assert turns.choose([small, alone, small], 10**8, idle=True) == [small]


def test_what_looks_through_many_files_is_never_grouped() -> None:
    looks, small = Row(0), Row(10)
    assert turns.choose([looks, small], 10**8, idle=True) == [looks]
    assert turns.choose([small, looks, small], 10**8, idle=True) == [small]


rows = st.lists(st.builds(Row, st.integers(1, 2_000_000), st.booleans()), max_size=30)


@given(rows, st.integers(0, 3_000_000), st.booleans())
def test_a_group_is_the_head_of_the_queue_and_fits(due: list[Row], free: int, idle: bool) -> None:
    chosen = turns.choose(due, free, idle)
    assert chosen == due[: len(chosen)]
    assert len(chosen) <= turns.GROUP_JOBS
    if len(chosen) > 1:
        assert sum(row.pixels for row in chosen) <= min(free, turns.GROUP_PIXELS)
    if due and idle:
        assert chosen
