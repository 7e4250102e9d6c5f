"""Places are left and taken again, and their number stays what it is."""

import threading

import pytest

from api.places import NoPlace, Places


@pytest.fixture(name="places")
def _places() -> Places:
    places = Places()
    places.limit(1)
    assert places.take()
    return places


def free(places: Places) -> int:
    count = 0
    while places.take(0):
        count += 1
    for _ in range(count):
        places.give_back()
    return count


def test_whoever_waits_leaves_its_place_to_another(places: Places) -> None:
    assert free(places) == 0
    with places.left():
        assert free(places) == 1
    assert free(places) == 0
    places.give_back()
    assert free(places) == 1


def test_whoever_waits_takes_a_place_to_work(places: Places) -> None:
    with places.left():
        with places.held():
            assert free(places) == 0
        assert free(places) == 1


def test_work_without_a_place_is_refused(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "take", lambda: False)
    with pytest.raises(NoPlace), places.held():
        pytest.fail("there was no place")


def test_a_place_that_was_not_got_back_in_time_is_not_given_back(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    with places.left():
        taker = threading.Thread(target=places.take)
        taker.start()
        taker.join()
        monkeypatch.setattr(places, "take", lambda: False)
    monkeypatch.undo()

    places.give_back()

    # The other one's.
    assert free(places) == 0
    places.give_back()
    assert free(places) == 1
