"""The clinic of config/clinic as its DBA would run it: one PostgreSQL database, two laptops that were offline, the CLI."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.cli import ROOT, answer, execute, replicator, rows

SHELF = """
insert into drugs values ('AMX', 'amoxicillin', '500 mg'), ('IBU', 'ibuprofen', '400 mg');
insert into stock values ('AMX', 100, ''), ('IBU', 50, '');
"""
PEOPLE = """
insert into staff values (1, 'Ada', 'nurse', 'ada@clinic'), (2, 'Ben', 'doctor', 'ben@clinic');
insert into patients values (10, 'Ira', '1980-02-03', 1, null), (11, 'Jon', '1975-12-31', 1, 'nuts');
insert into patients values (20, 'Kim', '2001-07-07', 2, null);
insert into vitals values ('00000000-0000-4000-8000-000000000001', 10, '2026-01-01T08:00:00Z', 70, 36.6);
insert into prescriptions values ('00000000-0000-4000-8000-00000000000a', 10, 'AMX', '1-0-1', null);
"""


class Clinic:
    """The example's topology in a folder of its own."""

    def __init__(self, folder: Path, centre: str, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(ROOT / "config/clinic", folder / "clinic")
        self.places = {"centre": centre}
        self.places |= {name: f"sqlite:///{folder}/clinic/{name}.sqlite3" for name in ("laptop_1", "laptop_2")}
        monkeypatch.setenv("CLINIC_CENTRE", centre)
        for place, url in self.places.items():
            engine = "postgres" if place == "centre" else "sqlite"
            execute(url, (ROOT / f"sql/{engine}/clinic.sql").read_text(encoding="utf-8"))
        self.options = ("-c", folder / "clinic/topology.yaml")
        self.at("centre", SHELF, PEOPLE)
        self.run("check")
        self.run("install", "--yes")
        self.run("sync")

    def at(self, place: str, *scripts: str) -> None:
        """Write as the application of a place does."""
        for script in scripts:
            execute(self.places[place], script)

    def read(self, place: str, query: str) -> list[tuple[object, ...]]:
        """The rows of a query."""
        return rows(self.places[place], query)

    def one(self, query: str) -> object:
        """The one value a query gives at the centre; every laptop that has the row has the same."""
        ((value,),) = self.read("centre", query)
        for laptop in ("laptop_1", "laptop_2"):
            assert self.read(laptop, query) in ([(value,)], []), (laptop, query, value)
        return value

    def run(self, *arguments: object, code: int | None = 0) -> str:
        """A command; what it printed."""
        return replicator(*arguments, *self.options, code=code).output


@pytest.fixture
def clinic(tmp_path: Path, postgres_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Clinic:
    return Clinic(tmp_path, postgres_database("clinic"), monkeypatch)


def test_a_laptop_gets_its_ward_and_what_everybody_gets(clinic: Clinic) -> None:
    assert clinic.read("laptop_1", "select id from patients order by id") == [(10,), (11,)]
    assert clinic.read("laptop_2", "select id from patients") == [(20,)]
    assert clinic.read("laptop_2", "select count(*) from vitals") == [(0,)]
    assert clinic.read("laptop_2", "select code from drugs order by code") == [("AMX",), ("IBU",)]

    clinic.at("centre", "update patients set ward = 2 where id = 10;")
    clinic.run("sync")

    assert clinic.read("laptop_1", "select id from patients") == [(11,)]
    assert clinic.read("laptop_1", "select count(*) from vitals") == [(0,)]
    assert clinic.read("laptop_2", "select id from patients order by id") == [(10,), (20,)]
    assert clinic.read("laptop_2", "select pulse from vitals") == [(70,)]
    clinic.run("audit")


def test_each_strategy_decides_as_it_says(clinic: Clinic) -> None:
    """Both sides change the same rows while they cannot see each other (invariant 6)."""
    clinic.at(
        "laptop_1",
        "update staff set role = 'head nurse' where id = 1;",
        "update stock set on_shelf = on_shelf - 10 where drug_code = 'AMX';",
    )
    clinic.at("laptop_1", "update vitals set pulse = 120;", "update patients set allergies = 'pollen' where id = 10;")
    clinic.at("laptop_2", "update stock set on_shelf = on_shelf - 5, note = 'reorder' where drug_code = 'AMX';")
    clinic.at("centre", "update staff set role = 'ward sister' where id = 1;", "update vitals set pulse = 71;")
    time.sleep(0.3)  # far enough apart for the clocks to tell which is the later
    clinic.at("centre", "update patients set allergies = 'cats' where id = 10;")

    clinic.run("sync")

    assert clinic.one("select role from staff where id = 1") == "ward sister"
    assert clinic.one("select pulse from vitals") == 120
    assert clinic.one("select allergies from patients where id = 10") == "cats"
    assert clinic.one("select on_shelf from stock where drug_code = 'AMX'") == 85
    assert clinic.one("select note from stock where drug_code = 'AMX'") == "reorder"
    clinic.run("audit")
    told = answer("conflicts", "list", *clinic.options)
    assert {"staff", "vitals", "patients", "stock"} <= {
        entry["table"].rpartition(".")[2] for entry in told["conflicts"]
    }


def test_a_prescription_waits_for_a_person(clinic: Clinic) -> None:
    clinic.at("laptop_1", "update prescriptions set dose = '1-1-1';")
    clinic.at("centre", "update prescriptions set dose = '0-0-1';")

    clinic.run("sync", code=1)

    assert clinic.read("centre", "select dose from prescriptions") == [("0-0-1",)]
    clinic.run("sync", code=None)
    assert clinic.read("laptop_1", "select dose from prescriptions") == [("0-0-1",)], (
        "until then the centre's row stands"
    )
    (waiting,) = answer("conflicts", "list", "--waiting", *clinic.options)["conflicts"]
    shown = clinic.run("conflicts", "show", waiting["id"])
    assert all(dose in shown for dose in ("1-0-1", "1-1-1", "0-0-1")), shown

    clinic.run("conflicts", "resolve", waiting["id"], "--set", "dose=1-0-0", "--yes")
    clinic.run("sync")

    assert clinic.one("select dose from prescriptions") == "1-0-0"
    assert clinic.read("laptop_1", "select dose from prescriptions") == [("1-0-0",)]
    clinic.run("audit")
    assert not answer("conflicts", "list", "--waiting", *clinic.options)["conflicts"]


def test_two_laptops_take_one_email(clinic: Clinic) -> None:
    """A unique value taken twice is parked with both rows, and heals when one of them gives it up (invariants 7, 8)."""
    clinic.at("laptop_1", "insert into staff values (3, 'Cleo', 'nurse', 'c@clinic');")
    clinic.at("laptop_2", "insert into staff values (4, 'Carl', 'porter', 'c@clinic');")
    clinic.run("sync", code=None)
    assert len(clinic.read("centre", "select id from staff where email = 'c@clinic'")) == 1

    winner = clinic.read("centre", "select id from staff where email = 'c@clinic'")[0][0]
    loser = "laptop_2" if winner == 3 else "laptop_1"
    clinic.at(loser, "update staff set email = 'other@clinic' where id in (3, 4) and email = 'c@clinic';")
    clinic.run("sync")

    for place in clinic.places:
        assert len(clinic.read(place, "select email from staff where id in (3, 4)")) == 2
    clinic.run("audit")
