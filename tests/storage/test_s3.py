"""Buckets, over a real server process that speaks S3: locks, credentials, requests, errors; a whole stage."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from storage_helpers import Server, start

from daskml_scale.errors import ConflictError, StoreError, UsageError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import buckets, files, stores
from daskml_scale.storage.lock import hold


@pytest.fixture
def bucket(s3: Server, request: pytest.FixtureRequest) -> str:
    return s3.make_bucket(f"b-{abs(hash(request.node.nodeid))}")


def template(rows: int = 8, chunk: int = 2) -> Template:
    return Template("row", rows, {"x": Variable("float64", ("row",), (rows,), (chunk,))})


def test_small_files_are_written_read_listed_and_removed(bucket):
    files.write_bytes(f"{bucket}/a/1.json", b"one")
    files.write_bytes(f"{bucket}/a/b/2.json", b"two")
    files.write_bytes(f"{bucket}/ab", b"beside")
    files.write_bytes(f"{bucket}/a/.hidden", b"")
    assert files.read_bytes(f"{bucket}/a/1.json") == b"one"
    assert files.read_bytes(f"{bucket}/a/none") is None
    assert files.names(f"{bucket}/a") == ["1.json", "b"]
    assert files.names(f"{bucket}/none") == []
    found = files.stat(f"{bucket}/a/1.json")
    assert found is not None
    assert found[0] == 3
    assert found[1] > 0
    files.remove(f"{bucket}/a")
    assert files.names(bucket) == ["ab"]


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/x", "s3://secret@bucket/x", "s3://b/x?sig=secret", "icechunk+s3://k:secret@b/x",
            "icechunk+s3://b/x#secret", "ftp://me:secret@host/x"]
)  # fmt: skip
def test_a_url_with_credentials_is_refused_without_repeating_them(url):
    with pytest.raises(UsageError) as refused:
        files.normal(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "icechunk+s3://", "icechunk+file://", "icechunk+ftp://x/y", "s3://b/../c"]
)
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(UsageError):
        files.normal(url)


def test_a_missing_bucket_is_named(s3):
    with pytest.raises(StoreError, match=r"cannot write s3://no-such-bucket/x: there is no such bucket; create it"):
        files.write_bytes("s3://no-such-bucket/x", b"")
    with pytest.raises(StoreError, match="no such bucket"):
        stores.create("s3://no-such-bucket/a.zarr", template())


def test_a_bucket_without_permission_is_explained_and_no_key_is_shown(tmp_path):
    """The server checks signatures from the second request on; nobody has this key."""
    process, server = start(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="1")
    try:
        server.make_bucket("closed")
        program = "from daskml_scale.storage import files\nfiles.write_bytes('s3://closed/x', b'')"
        environment = {
            **os.environ, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "AKIANOBODY",
            "AWS_SECRET_ACCESS_KEY": "hush", "AWS_REGION": "us-east-1",
        }  # fmt: skip
        child = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        process.kill()
        process.wait()
    assert child.returncode == 1
    assert "StoreError: cannot write s3://closed/x: the server refuses these credentials" in child.stderr
    assert "AKIANOBODY" not in child.stderr
    assert "hush" not in child.stderr
    assert 403 in {status for _, _, status in server.requests()}


def test_credentials_come_from_the_usual_file_too(bucket, s3, tmp_path):
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = fromfile\naws_secret_access_key = s\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "work",
        "AWS_ENDPOINT_URL": s3.url,
    }  # fmt: skip
    program = f"from daskml_scale.storage import files\nfiles.write_bytes('{bucket}/x', b'1')"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert files.read_bytes(f"{bucket}/x") == b"1"
    environment.pop("AWS_PROFILE")
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    child = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "StoreError: no credentials for s3://: set AWS_ACCESS_KEY_ID" in child.stderr


def test_a_lazy_dataset_pickles_without_credentials_and_opens_elsewhere(bucket):
    url = f"{bucket}/a.zarr"
    stores.create(url, template())
    stores.write_region(url, 0, {"x": np.arange(8.0)})
    content = pickle.dumps(stores.open_dataset(url))
    assert b"test-secret" not in content
    program = "import pickle, sys; print(float(pickle.load(sys.stdin.buffer).x.sum()))"
    child = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True)
    assert float(child.stdout) == 28


def test_an_object_is_identified_by_its_etag_without_reading_it(bucket, s3):
    url = f"{bucket}/a.zarr"
    stores.create(url, template())
    written = stores.write_region(url, 0, {"x": np.arange(8.0)})
    before = len(s3.requests())
    first = stores.snapshot(url)
    intact = stores.checker(url)
    assert all(intact(key, known) for key, known in written.items())
    assert [path for method, path, _ in s3.requests()[before:] if method == "GET" and "/x/c/" in path] == []
    stores.write_region(url, 2, {"x": np.array([7.0, 7.0])})
    second = stores.snapshot(url)
    assert first is not None
    assert second is not None
    assert [a == b for a, b in zip(first.ids["x"], second.ids["x"], strict=True)] == [True, False, True, True]
    intact = stores.checker(url)
    assert [intact(key, known) for key, known in written.items()] == [True, False, True, True]


def test_a_region_is_one_request_per_object_and_reading_it_one_more_each(bucket, s3):
    url = f"{bucket}/a.zarr"
    wide = {"x": Variable("float64", ("row",), (64,), (2,)), "m": Variable("float32", ("row", "f"), (64, 4), (2, 2))}
    stores.create(url, Template("row", 64, wide))
    from daskml_scale.storage import open_arrays

    with open_arrays.pinned(open_arrays.new_pass()):
        stores.write_region(url, 0, {"x": np.ones(2), "m": np.ones((2, 4), "f4")})  # opens the arrays
        stores.read_raw(url, "x", 0, 2)
        before = len(s3.requests())
        for start_row in range(2, 64, 2):
            stores.write_region(url, start_row, {"x": np.ones(2), "m": np.ones((2, 4), "f4")})
        assert len(s3.requests()) - before == 31 * 3
        before = len(s3.requests())
        for start_row in range(0, 64, 2):
            stores.read_raw(url, "m", start_row, start_row + 2)
        stores.read_raw(url, "x", 0, 2)
        assert len(s3.requests()) - before == 32 * 2 + 1


def test_a_large_object_is_one_request_too(bucket, s3):
    before = len(s3.requests())
    files.write_bytes(f"{bucket}/large", os.urandom(20 * 2**20))
    assert len(s3.requests()) - before == 1


def test_a_second_driver_is_refused_and_told_who_holds_the_store(bucket):
    held_by = rf"run one \(process {os.getpid()} on "
    with hold(f"{bucket}/store", "run one"), pytest.raises(ConflictError, match=held_by), hold(f"{bucket}/store", "x"):
        pass
    assert files.stat(f"{bucket}/store/.lock") is None
    with hold(f"{bucket}/store", "run three"):
        assert files.names(f"{bucket}/store") == []


def test_a_dead_drivers_lock_runs_out_by_the_servers_clock_alone(bucket, monkeypatch):
    program = textwrap.dedent(
        f"""
        import os, time
        from daskml_scale.storage.lock import hold
        with hold({bucket!r} + "/store", "dead run", lease=3):
            print("held", flush=True)
            time.sleep(60)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    time.sleep(4)  # longer than its lease: it is renewed
    # This clock is of no account: an hour ahead or behind changes nothing.
    monkeypatch.setattr(time, "time", lambda: 1e12)
    with pytest.raises(ConflictError, match="dead run"), hold(f"{bucket}/store", "next", lease=3):
        pass
    child.kill()
    child.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with hold(f"{bucket}/store", "next", lease=3):
                break
        except ConflictError:
            time.sleep(0.5)
    else:
        pytest.fail("the lock of a dead driver was never free")


def test_a_driver_that_lost_its_lock_writes_no_more(bucket):
    store = f"{bucket}/store"
    with hold(store, "cut off", lease=1.2):
        files.write_bytes(f"{store}/before", b"")
        root, path = f"{bucket}", "store/.lock"
        buckets.opened(root).put(path, json.dumps({"owner": "another", "token": "x"}).encode())
        deadline = time.monotonic() + 20
        while store not in buckets.LOST and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(ConflictError, match="lost its lock"):
            files.write_bytes(f"{store}/after", b"")
        files.write_bytes(f"{bucket}/elsewhere", b"")
    assert files.stat(f"{store}/.lock") is not None  # it is the other's
    assert not buckets.LOST


@pytest.mark.parametrize("url", ["gs://bucket/x", "az://container/x", "abfs://container/x"])
def test_other_buckets_are_urls_of_stores_too(url):
    assert files.normal(url + "/") == url
    assert isinstance(files.backend(url), buckets.Buckets)


def test_one_bucket_has_one_url_by_whichever_name(bucket):
    files.write_bytes(f"{bucket}/a", b"one")
    other = bucket.replace("s3://", "s3a://")
    assert files.normal(f"{other}/a/") == f"{bucket}/a"
    assert files.read_bytes(f"{other}/a") == b"one"
    assert files.normal("azure://container/x") == files.normal("adl://container/x") == "az://container/x"


def test_without_obstore_the_remedy_is_named(tmp_path):
    (tmp_path / "obstore").mkdir()
    (tmp_path / "obstore" / "__init__.py").write_text("raise ImportError('not here')")
    program = "from daskml_scale.storage import files\nfiles.read_bytes('s3://b/x')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "StoreError: s3://b needs obstore: pip install 'daskml-scale[s3]', on the workers too" in child.stderr
