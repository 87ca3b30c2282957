"""Code goes to the Python that can run it, and to no other."""

from __future__ import annotations

import operator

import pytest

from daskml_scale.engine import parcel
from daskml_scale.errors import UsageError


def test_what_was_packed_here_is_unpacked_here():
    function, shared = parcel.unpacked(parcel.packed((lambda value: value + 1, {"a": b"1 2"})))
    assert (function(1), shared) == (2, {"a": b"1 2"})


def test_code_of_another_python_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    """Run, it would end the worker by SIGSEGV, three times, and the unit would be blamed."""
    monkeypatch.setattr(parcel, "PYTHON", b"2.7")
    own, plain = parcel.packed(lambda value: value + 1), parcel.packed((operator.neg, type(None)))
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"sent from Python 2\.7 to a worker that has 3\.\d+ .*the same Python here"):
        parcel.unpacked(own)
    assert parcel.unpacked(plain)[0](1) == -1  # what is imported there is that Python's own
