"""What a machine holds: workers and memory per class."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskml_scale.deploy.machine import Size, cgroup_limits, size_classes, thread_environment
from daskml_scale.errors import SpecError
from daskml_scale.spec.cluster import WorkerClass, Workers

GIB = 2**30


def worker_class(**values: object) -> WorkerClass:
    return WorkerClass.model_validate(values)


def test_auto_is_a_worker_per_core_and_a_share_of_the_memory():
    assert size_classes({"cpu": WorkerClass()}, cores=8, memory=33 * GIB) == {"cpu": Size(8, 4 * GIB)}


def test_a_machine_of_four_gibibytes_and_two_cores_works():
    assert size_classes({"cpu": WorkerClass()}, cores=2, memory=4 * GIB) == {"cpu": Size(2, 3 * GIB // 2)}


def test_threads_share_cores():
    assert size_classes({"cpu": worker_class(threads=4)}, cores=8, memory=33 * GIB) == {"cpu": Size(2, 16 * GIB)}
    assert size_classes({"cpu": worker_class(threads=4)}, cores=2, memory=5 * GIB)["cpu"].maximum == 1


def test_many_cores_with_little_memory_get_fewer_workers():
    sizes = size_classes({"cpu": WorkerClass()}, cores=64, memory=5 * GIB)
    assert sizes == {"cpu": Size(16, 256 * 2**20)}


def test_given_sizes_are_kept():
    asked = worker_class(workers={"min": 1, "max": 3}, memory="2GiB")
    assert size_classes({"cpu": asked}, cores=1, memory=16 * GIB) == {"cpu": Size(3, 2 * GIB)}


def test_classes_share_what_fixed_ones_leave():
    sizes = size_classes(
        {"cpu": WorkerClass(workers=Workers(max=4)), "big": worker_class(workers={"min": 1, "max": 1}, memory="8GiB")},
        cores=4,
        memory=17 * GIB,
    )
    assert sizes == {"cpu": Size(4, 2 * GIB), "big": Size(1, 8 * GIB)}


@pytest.mark.parametrize("wanted", ["64TiB", "1MiB"])
def test_memory_that_makes_no_sense_is_refused_with_both_bounds(wanted: str):
    with pytest.raises(SpecError, match=rf"classes\.cpu\.memory: {wanted}: .* at least 256MiB .* has 16\.0GiB"):
        size_classes({"cpu": worker_class(memory=wanted)}, cores=2, memory=16 * GIB)


def test_more_workers_than_memory_for_them_are_refused():
    with pytest.raises(SpecError, match=r"classes\.cpu\.workers: 100 workers leave .* lower workers\.max"):
        size_classes({"cpu": worker_class(workers={"max": 100})}, cores=2, memory=4 * GIB)


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/job/step\n", {"job/memory.max": "2147483648\n", "job/step/memory.max": "max\n"}, [2 * GIB]),
        ("0::/\n", {"memory.max": "1073741824\n"}, [GIB]),
        (
            "7:cpu:/a\n4:memory:/a/b\n0::/\n",
            {"memory/a/b/memory.limit_in_bytes": "4096\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"},
            [4096, 9223372036854771712],
        ),
        ("0::/elsewhere\n", {}, []),
    ],
)
def test_limits_of_all_control_groups_above_are_found(
    tmp_path: Path, own: str, files: dict[str, str], limits: list[int]
):
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert list(cgroup_limits(tmp_path / "root", tmp_path / "own")) == limits


def test_a_system_without_control_groups_has_no_such_limit(tmp_path: Path):
    assert list(cgroup_limits(tmp_path, tmp_path / "absent")) == []


def test_inner_threads_follow_the_worker():
    environment = thread_environment(3)
    assert {environment[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}
