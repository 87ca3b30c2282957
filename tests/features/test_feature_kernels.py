"""Steps that look at one row at a time."""

from __future__ import annotations

import numpy as np
import pytest

from daskml_scale.spec.expressions import Coded
from daskml_scale.spec.steps import DATE_PARTS
from daskml_scale.stages.features.kernels import cyclical, date_parts, numbers, ordinal


def instants(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


def test_hours_follow_the_zone_over_both_changes_of_summer_time():
    spring = instants("2013-03-10T06:59", "2013-03-10T07:00", "2013-03-10T07:30")
    (minutes,) = date_parts(spring, ["minute_of_day"], "America/New_York")
    assert minutes.tolist() == [119, 180, 210]  # 02:00 to 03:00 did not happen
    autumn = instants("2013-11-03T05:30", "2013-11-03T06:30", "2013-11-03T07:30")
    hour, minute = date_parts(autumn, ["hour", "minute"], "America/New_York")
    assert hour.tolist() == [1, 1, 2]  # 01:30 happened twice
    assert minute.tolist() == [30, 30, 30]


def test_the_zone_decides_the_day():
    day, month, year, weekday = date_parts(
        instants("2013-01-01T03:00"), ["day", "month", "year", "dayofweek"], "America/New_York"
    )
    assert (day[0], month[0], year[0], weekday[0]) == (31, 12, 2012, 0)


def test_a_missing_instant_has_no_parts():
    parts = date_parts(instants("NaT", "2012-12-31T12:34"), list(DATE_PARTS), "UTC")
    assert all(np.isnan(part[0]) for part in parts)
    assert {name: part[1] for name, part in zip(DATE_PARTS, parts, strict=True)} == {
        "year": 2012, "month": 12, "day": 31, "dayofweek": 0, "dayofyear": 366, "hour": 12, "minute": 34,
        "minute_of_day": 754, "week": 1, "quarter": 4,
    }  # fmt: skip


def test_no_rows_have_no_parts():
    assert [len(part) for part in date_parts(instants(), ["week", "hour"], "Asia/Tokyo")] == [0, 0]


def test_waves_return_after_a_period_and_keep_missing():
    sine, cosine = cyclical(np.array([0.0, 6.0, 12.0, 24.0, np.nan]), 24)
    np.testing.assert_allclose(sine[:4], [0, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(cosine[:4], [1, 0, -1, 1], atol=1e-12)
    assert np.isnan(sine[4])
    assert np.isnan(cosine[4])


def test_ordinal_codes_by_label_and_marks_unknown_and_missing():
    learnt = ("EWR", "JFK", "LGA")
    assert ordinal(Coded(np.array([0, 1, 2, -1]), ("LGA", "SFO", "EWR")), learnt, -1).tolist() == [2, -1, 0, -1]
    assert ordinal(Coded(np.array([1, -5]), ("EWR", "SFO")), learnt, 99).tolist() == [99, 99]
    assert ordinal(Coded(np.array([-1]), ()), learnt, -1).tolist() == [-1]


def test_keep_refuses_what_is_not_a_number():
    assert numbers(np.array([1, 2])).dtype == "float64"
    for column in (Coded(np.array([0]), ("a",)), instants("2013-01-01")):
        with pytest.raises(TypeError, match="not numeric"):
            numbers(column)
