from __future__ import annotations

import json

import yaml

TEAM = "version: 1\nname: team\nbackend: existing\naddress: tcp://127.0.0.1:9\n"


def test_show_fills_in_every_default_and_can_be_read_back(command, folder):
    code, text, _ = command("clusters", "show", "local")
    assert code == 0
    assert yaml.safe_load(text)["classes"]["cpu"]["startup"] == "2s"
    (folder / "again.yaml").write_text(text)
    assert command("clusters", "show", "./again.yaml")[1] == text
    assert json.loads(command("clusters", "show", "local", "--json")[1]) == yaml.safe_load(text)


def test_the_list_is_the_same_with_and_without_its_verb(command):
    assert command("clusters", "list") == command("clusters")
    assert command("clusters", "list", "--json") == command("clusters", "--json")


def test_check_tells_what_it_found_and_fails_when_something_would(command, folder, monkeypatch):
    code, text, _ = command("clusters", "check", "local")
    assert (code, [line.split()[:2] for line in text.splitlines()[1:]]) == (
        0, [["ok", "cpu"], ["ok", "dashboard"], ["ok", "files"]],
    )  # fmt: skip
    monkeypatch.setattr("daskml_scale.deploy.existing.CONNECT_SECONDS", 0.5)
    (folder / "team.yaml").write_text(TEAM)
    code, out, _ = command("clusters", "check", "team.yaml", "--json")
    assert code == 1
    assert [(one["what"], one["ok"]) for one in json.loads(out)] == [("scheduler", False)]


def test_a_cluster_that_is_not_there_is_named(command):
    code, _, err = command("clusters", "check", "locall")
    assert code == 2
    assert "local" in err
