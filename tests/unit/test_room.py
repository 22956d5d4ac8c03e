"""Pixels in work stay within their budget, also of attempts that meet their pictures one by one."""

import threading

import pytest

from worker.room import Room

SOON = 30.0


def look() -> None:
    """Nobody calls it off."""


def test_what_is_asked_for_waits_until_there_is_room_and_lets_nothing_more_in_meanwhile() -> None:
    room = Room(10)
    room.claim(8)
    inside, leave = threading.Event(), threading.Event()

    def asks() -> None:
        with room.taking(4, look):
            inside.set()
            assert leave.wait(SOON)

    asking = threading.Thread(target=asks)
    asking.start()
    while room.free != -2:
        assert asking.is_alive()
    assert not inside.is_set()
    room.give_back(8)
    assert inside.wait(SOON)
    assert (room.free, room.idle) == (6, True)
    leave.set()
    asking.join(SOON)
    assert room.free == 10


def test_what_is_larger_than_all_goes_alone() -> None:
    room = Room(10)
    with room.taking(50, look):
        assert room.free == -40


def test_who_waits_for_room_can_be_called_off() -> None:
    room = Room(10)
    room.claim(8)

    def lost() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), room.taking(5, lost):
        raise AssertionError("there is no room")
    assert room.free == 2
    with room.taking(2, lost):
        pass
