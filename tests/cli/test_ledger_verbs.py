from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold

STORE = "runs/tiny"
CHUNK = Path(STORE, "table.zarr", "x", "c", "1")


def data(command, *words):
    code, out, _ = command(*words, "--json")
    return code, json.loads(out)


def test_show_lists_the_stages_and_the_units_of_one(command):
    command("run", "tiny.yaml")
    code, found = data(command, "ledger", "show", STORE)
    assert code == 0
    assert [(one["stage"], one["units"], one["rows"], one["objects"]) for one in found] == [
        ("check", {"ok": 4}, 0, 0), ("table", {"ok": 4}, 60, 6),
    ]  # fmt: skip
    _, units = data(command, "ledger", "show", STORE, "table")
    assert [one["unit"] for one in units] == ["rows/00000000", "rows/00000001", "rows/00000002", "scan"]
    assert {one["why"] for one in units} == {"new"}
    text = command("ledger", "show", f"{STORE}/table.zarr")[1]
    assert text.splitlines()[0].split() == ["stage", "units", "rows", "objects", "bytes", "time", "status"]
    assert text.splitlines()[1].split()[:4] == ["table", "4", "60", "6"]
    assert "4 ok" in text
    assert "rows/00000002" in command("ledger", "show", STORE, "table")[1]


def test_verify_finds_nothing_where_nothing_is_wrong(command):
    command("run", "tiny.yaml")
    code, out, _ = command("ledger", "verify", STORE)
    assert (code, out) == (0, "6 objects of 8 units are what the ledger says.\n")


def alter_unseen(path: Path) -> None:
    """Change bytes and keep size and time of change: only reading tells."""
    seen = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.mark.parametrize(
    ("harm", "status"),
    [
        (alter_unseen, "altered"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "torn"),
        (Path.unlink, "missing"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "altered"),
    ],
)
def test_verify_names_what_is_harmed_and_repair_redoes_exactly_that(command, harm, status):
    command("run", "tiny.yaml")
    before = CHUNK.read_bytes()
    harm(CHUNK)
    code, (_, table) = data(command, "ledger", "verify", STORE)
    assert code == 1
    assert table["problems"] == [{"unit": "rows/00000001", "object": "x/c/1", "status": status}]
    assert table["repaired"] == 0
    code, out, _ = command("ledger", "verify", STORE, "--repair")
    assert code == 0
    assert "1 unit marked: the next run repeats exactly these." in out
    _, rows = data(command, "run", "tiny.yaml", "--dry-run")
    reason = f"output {status}"
    assert [(row["units"], row["reasons"]) for row in rows[:1]] == [(1, {reason: 1})]
    _, summary = data(command, "run", "tiny.yaml")
    assert [(row["units"], row["reused"]) for row in summary["stages"]] == [(4, 3), (4, 4)]
    assert CHUNK.read_bytes() == before
    assert command("ledger", "verify", STORE)[0] == 0
    assert Ledger(f"{STORE}/table.ledger").records()["rows/00000001"].why == reason


def test_a_changed_record_is_found_and_a_torn_segment_dropped(command):
    command("run", "tiny.yaml")
    from dataclasses import replace

    ledger = Ledger(f"{STORE}/table.ledger")
    scan = ledger.records()["scan"]
    ledger.append([replace(scan, result={**scan.result, "rows": 59})])
    check = Path(STORE, "check.ledger", files.names(f"{STORE}/check.ledger")[0])
    check.write_bytes(check.read_bytes()[:-1])
    code, (lost, table) = data(command, "ledger", "verify", STORE)
    assert code == 1
    assert table["problems"] == [{"unit": "scan", "object": "", "status": "altered"}]
    assert lost["problems"] == [{"unit": "", "object": check.name, "status": "segment"}]
    assert command("ledger", "verify", STORE, "--repair")[0] == 0
    _, summary = data(command, "run", "tiny.yaml")
    assert [(row["units"], row["reused"]) for row in summary["stages"]] == [(4, 3), (4, 0)]
    assert command("ledger", "verify", STORE)[0] == 0


def test_a_store_in_use_is_not_repaired(command):
    command("run", "tiny.yaml")
    with hold(STORE, "run one"):
        assert command("ledger", "verify", STORE)[0] == 0
        code, _, err = command("ledger", "verify", STORE, "--repair")
    assert code == 3
    assert "in use by run one" in err


def test_what_holds_no_ledger_is_named(command, folder):
    command("run", "tiny.yaml")
    for words, message in (
        (("show", "nowhere"), "nowhere holds no ledger; give the store of a workflow"),
        (("show", STORE, "tabel"), "has no ledger of a stage 'tabel'; it has check, table"),
    ):
        code, _, err = command("ledger", *words)
        assert code == 2
        assert message in err


def test_status_says_why_a_unit_ran_and_whether_it_would_again(command, folder):
    command("run", "tiny.yaml")
    code, (valid,) = data(command, "status", "--why", "rows/00000001")
    assert code == 0
    assert (valid["stage"], valid["now"], valid["ran"]["why"], valid["changed"]) == ("table", "valid", "new", {})
    CHUNK.unlink()
    _, (gone,) = data(command, "status", "--why", "table:rows/00000001")
    assert gone["now"] == "output missing"
    (folder / "a.csv").write_text((folder / "a.csv").read_text() + "99,1.5\n")
    _, (scan,) = data(command, "status", "--why", "scan")
    assert scan["now"] == "input changed"
    assert list(scan["changed"]) == ["inputs"]
    command("run", "tiny.yaml")
    text = command("status", "--why", "scan")[1]
    assert "table:scan  ok" in text
    assert "ran  because: input changed" in text
    code, _, err = command("status", "--why", "rows/77")
    assert code == 2
    assert "no stage has a unit 'rows/77'; there are table:scan, table:rows/00000000" in err


def test_a_dry_run_says_how_many_of_how_many_units_run_and_why(command):
    command("run", "tiny.yaml")
    CHUNK.unlink()
    assert "1 of 4 units: output missing" in command("run", "tiny.yaml", "--dry-run")[1]


def test_rollback_brings_an_icechunk_store_back_to_an_earlier_run(command, folder):
    pytest.importorskip("icechunk", reason="the extra icechunk is not installed (Python >= 3.12)")
    store = "icechunk+file://runs/ice"
    command("run", "tiny.yaml", "--store", store)
    Path("a.csv").write_text("key,x\n1,2\n")
    command("run", "tiny.yaml", "--store", store)
    code, known = data(command, "ledger", "rollback", store)
    assert code == 0
    second, first = (one["run"] for one in known)
    assert data(command, "ledger", "rollback", store, first) == (0, {"run": first, "left": [second]})
    assert [one["rows"] for one in data(command, "ledger", "show", store)[1]] == [0, 60]
    assert command("ledger", "rollback", store, second)[0] == 2
    code, text, _ = command("ledger", "rollback", store)
    assert (code, first in text, second in text) == (0, True, False)


def test_rollback_of_a_store_without_history_is_refused(command):
    command("run", "tiny.yaml")
    code, _, err = command("ledger", "rollback", STORE)
    assert code == 2
    assert "only Icechunk repositories can be rolled back" in err
