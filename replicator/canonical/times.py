"""Dates and times in SQLite's spellings (always text) and PostgreSQL's output, as PostgreSQL's own binary numbers.

Days (32 bits) or microseconds (64 bits) since 2000; the largest and the smallest number are the infinities.

Read: ``YYYY-MM-DD``, then a blank or ``T``, ``HH:MM``, ``:SS``, a fraction, a zone (``Z``, ``+HH``, ``+HH:MM``, ``+HH:MM:SS``,
a blank may stand before it), `` BC``; ``infinity`` and ``-infinity``. Years have four to six digits. Not read: numbers (unix
seconds and Julian days cannot be told apart), bare times as dates, negative years, a fraction finer than a microsecond.
"""

from __future__ import annotations

import re
from functools import lru_cache

_DAY = 86_400_000_000
_FIRST_DAY = -2_451_545  # 4714-11-24 BC, the first day PostgreSQL holds
_LAST_DAY = 2_145_031_948  # 5874897-12-31
_LAST_INSTANT = 9_223_371_331_200_000_000 - 1  # 294276-12-31 23:59:59.999999
_SIGNS = {"infinity": 1, "-infinity": -1}
_CLOCK = r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?"
_TIME = re.compile(_CLOCK, re.ASCII)
_MOMENT = re.compile(
    rf"(\d{{4,7}})-(\d\d)-(\d\d)(?:(?:\s+|T){_CLOCK}\s*(Z|[+-]\d\d(?::?\d\d(?::\d\d)?)?)?)?(\sBC)?",
    re.ASCII | re.IGNORECASE,
)


def infinite(sign: int, bits: int) -> int:
    """The number that stands for an infinity."""
    return (1 << bits - 1) - 1 if sign > 0 else -(1 << bits - 1)


def read_date(text: str) -> int:
    """Days since 2000. Raises ValueError with the reason; a time of day other than midnight is one."""
    if sign := _SIGNS.get(text.strip().lower()):
        return infinite(sign, 32)
    days, micros, zone = _moment(text)
    if micros or zone is not None:
        raise ValueError("the date has a time of day or a zone")
    if days > _LAST_DAY:
        raise ValueError("the date is outside of PostgreSQL's range")
    return days


def read_time(text: str) -> int:
    """Microseconds since midnight; ``24:00`` is one day. Raises ValueError with the reason."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("the text is no time of day (HH:MM:SS)")
    return _clock(*match.groups())


def read_timestamp(text: str) -> int:
    """Microseconds since 2000. A zone other than UTC raises ValueError: the column could only drop it."""
    if sign := _SIGNS.get(text.strip().lower()):
        return infinite(sign, 64)
    days, micros, zone = _moment(text)
    if zone:
        raise ValueError("the timestamp has a zone, which a column without zone cannot hold")
    return _instant(days * _DAY + micros)


def read_timestamptz(text: str) -> int:
    """Microseconds since 2000 in UTC; no zone means UTC. Raises ValueError with the reason."""
    if sign := _SIGNS.get(text.strip().lower()):
        return infinite(sign, 64)
    days, micros, zone = _moment(text)
    return _instant(days * _DAY + micros - (zone or 0))


def _instant(micros: int) -> int:
    if not _FIRST_DAY * _DAY <= micros <= _LAST_INSTANT:
        raise ValueError("the timestamp is outside of PostgreSQL's range")
    return micros


def _moment(text: str) -> tuple[int, int, int | None]:
    """Days, microseconds of the day, and the zone's offset in microseconds (``None``: no zone given)."""
    if len(text) == 19 or text[19:20] == ".":
        days, seconds = _day(text[:11]), _second(text[11:19])
        digits = text[20:]
        if (
            days is not None
            and seconds is not None
            and len(digits) <= 6
            and (text[19:] == "" or (digits.isascii() and digits.isdecimal()))
        ):
            return days, seconds + int(digits.ljust(6, "0")), None
    return _read(text)


@lru_cache(4096)
def _day(text: str) -> int | None:
    """The day of ``YYYY-MM-DD`` and a blank or ``T``; ``None`` when it is spelled otherwise or there is none."""
    if len(text) != 11 or text[10] not in " T" or not text.isascii():
        return None
    try:
        return _read(text[:10])[0]
    except ValueError:
        return None


@lru_cache(86_400)
def _second(text: str) -> int | None:
    """The microseconds of ``HH:MM:SS``; ``None`` when it is spelled otherwise."""
    match = _TIME.fullmatch(text)
    if match is None or match.group(3) is None or match.group(4) is not None or text > "23:59:59":
        return None
    try:
        return _clock(*match.groups())
    except ValueError:
        return None


def _read(text: str) -> tuple[int, int, int | None]:
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        raise ValueError("the text is no date and time (YYYY-MM-DD HH:MM:SS)")
    year, month, day, hour, minute, second, fraction, zone, era = match.groups()
    if not int(year):
        raise ValueError("there is no year 0")
    days = days_from_civil(1 - int(year) if era else int(year), int(month), int(day))
    if days < _FIRST_DAY:
        raise ValueError("the date is outside of PostgreSQL's range")
    micros = 0 if hour is None else _clock(hour, minute, second, fraction)
    return days, micros, None if zone is None else _zone(zone)


def _clock(hour: str, minute: str, second: str | None, fraction: str | None) -> int:
    micros = ((int(hour) * 60 + int(minute)) * 60 + int(second or 0)) * 1_000_000
    if int(minute) > 59 or int(second or 0) > 59:
        raise ValueError("minutes and seconds end at 59")
    if fraction:
        if fraction[6:].strip("0"):
            raise ValueError("the time is finer than a microsecond")
        micros += int(fraction[:6].ljust(6, "0"))
    if micros > _DAY:
        raise ValueError("the day ends at 24:00")
    return micros


def _zone(text: str) -> int:
    if text in "Zz":
        return 0
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 15 or minutes > 59 or seconds > 59:
        raise ValueError("the zone is out of range")
    offset = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000
    return -offset if text[0] == "-" else offset


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 2000 of a proleptic Gregorian date; year 0 is 1 BC. Raises ValueError when there is no such day."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1]:
        raise ValueError("there is no such day")
    shifted = year - (month <= 2)
    era, of_era = divmod(shifted, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 730_425


def _infinity(number: int, bits: int) -> str:
    return next((word for word, sign in _SIGNS.items() if number == infinite(sign, bits)), "")


def date_text(days: int) -> str:
    """The date as PostgreSQL prints it, `` BC`` and all."""
    if word := _infinity(days, 32):
        return word
    text, era = _civil_text(days)
    return text + era


def time_text(micros: int) -> str:
    """The time of day as PostgreSQL prints it."""
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def timestamp_text(micros: int, zone: str = "") -> str:
    """The moment as PostgreSQL prints it, ``zone`` (such as ``+00``) behind the time."""
    if word := _infinity(micros, 64):
        return word
    days, of_day = divmod(micros, _DAY)
    text, era = _civil_text(days)
    return f"{text} {time_text(of_day)}{zone}{era}"


def _civil_text(days: int) -> tuple[str, str]:
    era, of_era = divmod(days + 730_425, 146_097)
    of_era_year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * of_era_year + of_era_year // 4 - of_era_year // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = of_era_year + era * 400 + (month <= 2)
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{day:02}", "" if year > 0 else " BC"
