"""Bytes to lines, however they are cut into parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_client import ProtocolError
from order_client.lines import lines_of


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b"bc", b"\xc3", b"\xa9", b""])))
def test_lines_do_not_depend_on_where_the_parts_are_cut(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    expected = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert list(lines_of(parts)) == expected
    assert list(lines_of(whole[i : i + 1] for i in range(len(whole)))) == expected


def test_unusual_line_ends_of_unicode_end_no_line() -> None:
    text = "a\u2028b\x0bc\x85d".encode()
    assert list(lines_of([text + b"\n"])) == [text]


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    assert list(lines_of([b"12345", b"67890\n"], bytes_max=10)) == [b"1234567890"]
    with pytest.raises(ProtocolError, match="more than 10 bytes"):
        list(lines_of([b"123456"] * 9, bytes_max=10))
