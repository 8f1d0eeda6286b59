"""Record literals: round trips, hand-written spellings, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.records import encode_record, parse_record

VALUES = st.lists(st.none() | st.text() | st.text(alphabet='",\\() \n\t\v\f\r\x85\xa0a'), min_size=1)


@given(VALUES)
def test_what_is_encoded_is_read_back(values: list[str | None]) -> None:
    assert parse_record(encode_record(values)) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("()", [None]),
        ('("")', [""]),
        ("(,)", [None, None]),
        ('(a,"b c",,"")', ["a", "b c", None, ""]),
        (r'("a""b\\c")', ['a"b\\c']),
        (r'(a"b,c"d\,e)', ["ab,cd,e"]),
        (r'(""x)', ["x"]),
        ('("(1,""a b"")")', ['(1,"a b")']),
        (r"(a\)b)", ["a)b"]),
    ],
)
def test_spellings(text: str, values: list[str | None]) -> None:
    assert parse_record(text) == values


@pytest.mark.parametrize("text", ["", "(", "a", "(a", "a)", '("a)', "(a(b)", "(a)b)"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="record literal"):
        parse_record(text)


def test_an_unclosed_quote_is_refused_in_linear_time() -> None:
    with pytest.raises(ValueError, match="record literal"):
        parse_record('("' + "a" * 200_000 + ")")
