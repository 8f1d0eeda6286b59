"""Canonical forms: what equal values share, what different values never share, and which values have no form."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.canonical import (
    VECTORS,
    Cell,
    Form,
    NoFormError,
    Undecodable,
    Value,
    bucket_of,
    canonical_text,
    frame,
    hash_images,
    image_rows,
    native_value,
    readable,
    split_image,
)
from replicator.canonical.images import reason_of

_INT64 = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=("Cs",)))
_VALUES: st.SearchStrategy[Value] = st.one_of(
    st.none(), _INT64, st.floats(allow_nan=False), _TEXT, st.binary(), st.binary().map(Undecodable)
)
_MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999))


@pytest.mark.parametrize("form", Form)
def test_every_form_has_a_vector_of_values_that_differ(form: Form) -> None:
    images = image_rows([form], [(probe.sqlite,) for probe in VECTORS[form]])
    assert len(set(hash_images(images))) == len(images) > 2


@pytest.mark.parametrize("form", Form)
@given(values=st.lists(_VALUES, max_size=8))
@example(values=[0.0, -0.0, 1, "1", b"1", None])
def test_a_column_is_framed_as_its_values_are_one_by_one(form: Form, values: list[Value]) -> None:
    assert image_rows([form], [(value,) for value in values]) == [frame(form, value) for value in values]


@given(st.lists(st.tuples(st.sampled_from(Form), _VALUES), min_size=1, max_size=6))
def test_an_image_gives_its_values_back(columns: list[tuple[Form, Value]]) -> None:
    forms = [form for form, _ in columns]
    cells = split_image(forms, "".join(frame(form, value) for form, value in columns))
    for (form, value), cell in zip(columns, cells, strict=True):
        if cell.fits:
            assert cell == Cell(canonical_text(form, value))
        else:
            with pytest.raises(NoFormError) as caught:
                canonical_text(form, value)
            assert reason_of(form, cell) == str(caught.value)
            assert native_value(form, cell) == value
            assert type(native_value(form, cell)) is type(value)


@given(
    st.lists(st.sampled_from([Form.TEXT, Form.INTEGER, Form.BYTES, Form.JSONB, Form.STORAGE]), max_size=5), st.data()
)
def test_two_rows_with_one_image_are_equal(forms: list[Form], draw: st.DataObject) -> None:
    texts = st.sampled_from(["", "~", "~,", ",", "1:a", "!1:t", "1", "a"])
    short = st.one_of(st.none(), st.integers(0, 3), texts, st.binary(max_size=1))
    row, other = ([draw.draw(short) for _ in forms] for _ in range(2))
    images = image_rows(forms, [row, other]) if forms else ["", ""]
    same = all(frame(form, a) == frame(form, b) for form, a, b in zip(forms, row, other, strict=True))
    assert (images[0] == images[1]) == same


@given(_VALUES)
def test_storage_is_exact_for_every_value(value: Value) -> None:
    cell = Cell(canonical_text(Form.STORAGE, value))
    back = native_value(Form.STORAGE, cell)
    assert type(back) is type(value)
    assert back == value
    if isinstance(value, float):
        assert math.copysign(1, value) == math.copysign(1, back)  # type: ignore[arg-type]


@given(st.floats())
def test_doubles_keep_every_bit(number: float) -> None:
    text = canonical_text(Form.FLOAT8, number)
    assert text == ("NaN" if math.isnan(number) else struct.pack(">d", number).hex())
    assert math.isnan(number) or float(readable(Form.FLOAT8, Cell(text)) or "") == number
    zero = canonical_text(Form.FLOAT8_ZERO, number)
    assert zero == ("0" * 16 if number == 0 else text)


@given(st.floats(width=32, allow_nan=False))
def test_a_real_is_found_behind_its_double_and_its_shortest_digits(single: float) -> None:
    text = canonical_text(Form.FLOAT4, single)
    assert text == struct.pack(">f", single + 0.0).hex()
    assert canonical_text(Form.FLOAT4, float(readable(Form.FLOAT4, Cell(text)) or "")) == text


@pytest.mark.parametrize("number", [0.1 + 1e-12, 1e39, 16777217.0])
def test_a_double_that_a_real_would_round_has_no_form(number: float) -> None:
    with pytest.raises(NoFormError):
        canonical_text(Form.FLOAT4, number)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40), st.integers(0, 5))
def test_numeric_is_the_value_whatever_the_spelling(number: Decimal, zeros: int) -> None:
    text = format(number, "f")
    padded = text + "0" * zeros if "." in text else f"{text}.{'0' * zeros}"
    found = canonical_text(Form.NUMERIC, text)
    assert found == canonical_text(Form.NUMERIC, padded) == canonical_text(Form.NUMERIC, f" {number:e} ")
    assert found is not None
    assert Decimal(found) == number
    assert not ("." in found and found.endswith("0"))
    assert found != "-0"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_real_as_numeric_is_its_shortest_digits(number: float) -> None:
    text = canonical_text(Form.NUMERIC, number)
    assert text == canonical_text(Form.NUMERIC, repr(number))
    assert float(text or "") == number


@given(_INT64)
def test_integers_beyond_doubles_stay_exact(number: int) -> None:
    assert canonical_text(Form.INTEGER, number) == str(number) == canonical_text(Form.NUMERIC, number)
    assert canonical_text(Form.INTEGER, f"{number:+}") == str(number)


@given(_MOMENTS, st.sampled_from(["T", " "]), st.integers(-15 * 60, 15 * 60))
def test_moments_are_read_in_every_spelling(moment: datetime, letter: str, minutes: int) -> None:
    micros = (moment - datetime(2000, 1, 1)) // timedelta(microseconds=1)
    text = moment.isoformat(letter)
    assert canonical_text(Form.TIMESTAMP, text) == struct.pack(">q", micros).hex()
    assert canonical_text(Form.TIMESTAMPTZ, text) == struct.pack(">q", micros).hex()
    zone = timezone(timedelta(minutes=minutes))
    zoned = moment.replace(tzinfo=zone).isoformat(letter)
    offset = minutes * 60_000_000
    assert canonical_text(Form.TIMESTAMPTZ, zoned) == struct.pack(">q", micros - offset).hex()
    if minutes:
        with pytest.raises(NoFormError, match="zone"):
            canonical_text(Form.TIMESTAMP, zoned)
    else:
        assert canonical_text(Form.TIMESTAMP, zoned) == canonical_text(Form.TIMESTAMP, text)


@given(_MOMENTS)
def test_moments_and_dates_are_shown_as_they_were(moment: datetime) -> None:
    for form, text in (
        (Form.TIMESTAMP, moment.isoformat(" ")),
        (Form.DATE, str(moment.date())),
        (Form.TIME, str(moment.time())),
    ):
        shown = readable(form, Cell(canonical_text(form, text))) or ""
        assert canonical_text(form, shown) == canonical_text(form, text)
        assert shown.rstrip("0") == text.rstrip("0")
    instant = moment.replace(tzinfo=UTC)
    assert readable(Form.TIMESTAMPTZ, Cell(canonical_text(Form.TIMESTAMPTZ, instant.isoformat()))) == (
        str(moment).rstrip("0") + "+00" if moment.microsecond else f"{moment}+00"
    )


@given(st.dates())
def test_days_are_counted_from_2000(day: date) -> None:
    assert canonical_text(Form.DATE, day.isoformat()) == struct.pack(">i", (day - date(2000, 1, 1)).days).hex()


_NONE: list[tuple[Form, Value]] = [
    (Form.INTEGER, b"\x01"), (Form.INTEGER, "five"), (Form.INTEGER, 5.5), (Form.INTEGER, 1e19), (Form.INTEGER, ""),
    (Form.NUMERIC, "1,5"), (Form.NUMERIC, b"1"), (Form.NUMERIC, "1e200000"), (Form.NUMERIC, "1e99999999999999999999"),
    (Form.FLOAT8_ZERO, "abc"), (Form.FLOAT8_ZERO, 2**53 + 1), (Form.BOOLEAN, 2), (Form.BOOLEAN, "maybe"),
    (Form.TEXT, 5), (Form.TEXT, b"a"), (Form.TEXT, "a\0b"), (Form.TEXT, Undecodable(b"\xff")), (Form.LOOSE_TEXT, b"a"),
    (Form.BYTES, "a"), (Form.BYTES, Undecodable(b"\xff")), (Form.UUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    (Form.UUID, "x"), (Form.UUID, b"short"), (Form.DATE, "2024-02-30"), (Form.DATE, "2023-02-29"),
    (Form.DATE, "2024-01-01 10:00"), (Form.DATE, "0000-01-01"), (Form.DATE, 20240101), (Form.DATE, "-0044-03-15"),
    (Form.TIME, "25:00"), (Form.TIME, "10"), (Form.TIME, "24:00:01"), (Form.TIMESTAMP, 1_700_000_000),
    (Form.TIMESTAMP, 2460000.5), (Form.TIMESTAMP, "now"), (Form.TIMESTAMP, "2024-01-01 00:00:60"),
    (Form.TIMESTAMP, "2024-01-01 00:00:00.1234567"), (Form.TIMESTAMP, "2024-13-01"),
    (Form.TIMESTAMP, "294277-01-01 00:00:00"), (Form.TIMESTAMPTZ, "2024-01-01 00:00:00+16"), (Form.JSONB, "{"),
    (Form.JSONB, '"\\u0000"'), (Form.JSONB, '"\\ud800"'), (Form.JSONB, "NaN"), (Form.JSONB, 5), (Form.JSONB, "[" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize(("form", "value"), _NONE)
def test_what_cannot_be_held_has_no_form_and_says_why(form: Form, value: Value) -> None:
    with pytest.raises(NoFormError) as caught:
        canonical_text(form, value)
    assert len(str(caught.value)) > 8
    piece = frame(form, value)
    assert piece.startswith("!")
    assert not split_image([form], piece)[0].fits


@pytest.mark.parametrize("form", Form)
def test_null_is_no_text(form: Form) -> None:
    assert canonical_text(form, None) is None
    assert frame(form, None) == "~,"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",),
    exclude_characters="\0")), inner),
)  # fmt: skip


@given(_JSON, st.booleans(), st.sampled_from([None, 1]))
def test_json_means_the_same_whatever_its_layout(document: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    found = canonical_text(Form.JSONB, text)
    assert found == canonical_text(Form.JSONB, json.dumps(document))
    assert json.loads(found or "", parse_int=float) == json.loads(text, parse_int=float)
    assert canonical_text(Form.JSONB, found) == found


@given(_TEXT, st.sampled_from([1, 16, 512, 65_536]))
def test_buckets_are_in_range_and_repeatable(key: str, buckets: int) -> None:
    assert 0 <= bucket_of(key, buckets) < buckets
    assert bucket_of(key, buckets) == bucket_of(key, 65_536) % buckets
