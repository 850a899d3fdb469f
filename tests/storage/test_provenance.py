import sys

import pytest

from bat_dist.storage.provenance import provenance


def test_the_command_is_told_without_its_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://me:hunter5@host/runs"
    monkeypatch.setattr(sys, "argv", ["/somewhere/bat-dist", "train", "--out", uri, "--name", "a b", "--x=@y"])
    assert provenance()["command"] == "bat-dist train --out s3://***@host/runs --name 'a b' --x=@y"


def test_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hunter5")
    assert "hunter5" not in str(provenance())
