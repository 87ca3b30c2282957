"""Who may see a dashboard: the rules as a pure function, and the whole port of a real cluster."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from bokeh.util.token import generate_jwt_token, generate_session_id
from deploy_helpers import SPEC, eventually
from distributed import Scheduler
from hypothesis import given
from hypothesis import strategies as st
from tornado import httputil
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from daskml_scale import deploy
from daskml_scale.deploy.gate import OPEN, Gate, Rules, guard, judge, rules_for, with_token

RULES = Rules("secret", ("localhost", "127.0.0.1", "hub.example.org"))
HERE = {"Host": "127.0.0.1:8787"}


def code(rules: Rules, target: str, **headers: str) -> int:
    found = judge(
        rules, target, httputil.HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()})
    )
    return 200 if found is None else found.code


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/status", {}, 401),
        ("/status?token=wrong", {}, 401),
        ("/status", {"Authorization": "Bearer wrong"}, 401),
        ("/status", {"Cookie": "daskml=secret"}, 401),
        ("/status", {"Cookie": "not; a=cookie\x00"}, 401),
        ("/status", {"Authorization": "Bearer secret"}, 200),
        ("/status", {"Cookie": f"a=b; {RULES.cookie}=secret"}, 200),
        ("/workflow.json?token=secret", {}, 200),
        ("/workflow?token=secret", {"Accept": "text/html,*/*"}, 302),
        ("/health", {}, 200),
        ("/individual-plots.json", {}, 200),
        ("/proxy/80/10.0.0.1/health", {}, 401),
        ("//health", {}, 401),
        ("http://127.0.0.1/health", {}, 401),
        ("/health", {"Host": "evil.example"}, 421),
        ("/status", {"Host": "evil.example", "Authorization": "Bearer secret"}, 421),
        ("/status", {"Host": "", "Authorization": "Bearer secret"}, 421),
        ("/status", {"Host": "HUB.example.org", "Authorization": "bearer secret"}, 200),
        ("/status/ws", {"Origin": "http://evil.example", "Authorization": "Bearer secret"}, 403),
        ("/status/ws", {"Origin": "http://127.0.0.1:9999", "Authorization": "Bearer secret"}, 403),
        ("/status/ws", {"Origin": "null", "Authorization": "Bearer secret"}, 403),
        ("/status/ws", {"Origin": "http://127.0.0.1:8787", "Authorization": "Bearer secret"}, 200),
        ("/status/ws", {"Origin": "https://hub.example.org", "Authorization": "Bearer secret"}, 200),
        ("/status/ws", {"Origin": "http://127.0.0.1:8787"}, 401),
    ],
)
def test_the_rules_beyond_this_machine(target: str, headers: dict[str, str], expected: int) -> None:
    assert code(RULES, target, **{**HERE, **headers}) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Host": "hub.example.org"}, 200),
        ({"Origin": "http://127.0.0.1:8787"}, 200),
        ({"Origin": "https://codes.example", "X-Forwarded-Host": "codes.example"}, 200),
        ({"Origin": "http://evil.example"}, 403),
    ],
)
def test_on_this_machine_only_pages_of_other_sites_are_refused(headers: dict[str, str], expected: int) -> None:
    assert code(rules_for("127.0.0.1"), "/status/ws", **{**HERE, **headers}) == expected
    assert code(rules_for("127.0.0.1", ["hub.example.org"]), "/status", Host="evil.example") == 421


@given(st.text(), st.dictionaries(st.sampled_from(["Host", "Origin", "Cookie", "Authorization", "Accept"]), st.text()))
def test_nothing_that_is_sent_gets_through_without_the_token(target: str, headers: dict[str, str]) -> None:
    found = judge(RULES, target, headers)
    assert found is not None or target in OPEN or "secret" in target + str(headers)


def test_the_answer_to_a_link_takes_the_token_out_of_the_address_and_keeps_the_rest() -> None:
    accept = {**HERE, "Accept": "text/html"}
    found = judge(RULES, "/prefix/workflow?run=a%20b&token=secret", accept)
    assert found is not None
    assert found.headers["Location"] == "./workflow?run=a+b"
    assert found.headers["Set-Cookie"] == f"{RULES.cookie}=secret; HttpOnly; SameSite=Lax; Path=/"
    outside = judge(RULES, "//evil.example/?token=secret", accept)
    assert outside is not None
    assert outside.headers["Location"] == "./"
    assert with_token("http://h/status", "a b") == "http://h/status?token=a+b"
    assert with_token("", "t") == ""
    assert "secret" not in repr(RULES)


def test_a_scheduler_without_the_known_server_is_refused_and_a_second_gate_changes_nothing() -> None:
    """The contract with Dask and Tornado: `http_server.request_callback` takes every request."""
    with pytest.raises(AttributeError):
        guard(object(), RULES)

    async def gates() -> list[Any]:
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
            guard(scheduler, RULES)
            first = scheduler.http_server.request_callback
            guard(scheduler, Rules("other"))
            return [first, scheduler.http_server.request_callback]

    first, second = asyncio.run(gates())
    assert isinstance(first, Gate)
    assert first is second


@pytest.fixture(scope="module")
def gated() -> Iterator[Any]:
    """A cluster whose dashboard others can reach."""
    preload = ("daskml_scale.dashboard.preload",)
    spec = {**SPEC, "dashboard": {"listen": "0.0.0.0:0"}}
    with deploy.cluster(spec, preload=preload, adapt=False) as cluster:
        yield cluster


def ask(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_whole_port_of_a_cluster_is_behind_the_gate(gated: Any) -> None:
    link = urlsplit(gated.dashboard_link)
    (token,) = parse_qs(link.query)["token"]
    base = f"http://127.0.0.1:{link.port}"
    bearer = {"Authorization": f"Bearer {token}"}
    assert not link.hostname.startswith("127.")
    for path in (
        "/status",
        "/workflow",
        "/workflow.json",
        "/metrics",
        "/info/main/workers.html",
        "/status/ws",
        "/json/",
    ):
        assert ask(base + path) == 401, path
        assert ask(base + path, Host="evil.example", **bearer) == 421, path
    assert ask(base + "/health") == ask(base + "/individual-plots.json") == 200
    assert ask(base + "/workflow.json", **bearer) == ask(base + "/metrics", **bearer) == 200
    assert ask(gated.dashboard_link) == 200  # a program follows the printed link
    cookies = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with cookies.open(urllib.request.Request(f"{base}/status?token={token}", headers={"Accept": "text/html"})) as page:
        assert page.url == f"{base}/status"
        assert b"Bokeh" in page.read()
    with gated.get_client() as client:
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3


def socket_opens(url: str, **headers: str) -> int:
    async def opened() -> int:
        request = HTTPRequest(url, headers=headers, connect_timeout=60, request_timeout=60)
        try:
            found = await websocket_connect(request, subprotocols=["bokeh", generate_jwt_token(generate_session_id())])
        except HTTPClientError as error:
            return int(error.code)
        message = await asyncio.wait_for(found.read_message(), 60)
        found.close()
        return 101 if message and "ACK" in str(message) else 0

    return asyncio.run(opened())


def test_a_websocket_of_another_site_is_refused(gated: Any) -> None:
    link = urlsplit(gated.dashboard_link)
    (token,) = parse_qs(link.query)["token"]
    url, origin = f"ws://127.0.0.1:{link.port}/workflow/ws", f"http://127.0.0.1:{link.port}"
    assert socket_opens(url, Origin=origin, Authorization=f"Bearer {token}") == 101
    assert socket_opens(url, Origin=origin) == 401
    assert socket_opens(url, Origin="http://evil.example", Authorization=f"Bearer {token}") == 403


def test_a_dashboard_of_this_machine_needs_no_token_and_refuses_other_sites() -> None:
    with deploy.cluster(SPEC) as cluster:
        link = urlsplit(cluster.dashboard_link)
        assert not link.query
        assert ask(cluster.dashboard_link) == 200
        url = f"ws://127.0.0.1:{link.port}/status/ws"
        assert socket_opens(url, Origin=f"http://127.0.0.1:{link.port}") == 101
        assert socket_opens(url, Origin="http://evil.example") == 403


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[str]:
    """A Jupyter server with jupyter-server-proxy; gives its address."""
    pytest.importorskip("jupyter_server_proxy", reason="jupyter-server-proxy is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        "--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.root_dir={tmp_path}",
        "--ServerApp.jpserver_extensions={'jupyter_server_proxy': True}", "--ServerApp.allow_remote_access=True",
    ]  # fmt: skip
    with (tmp_path / "jupyter.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        eventually(lambda: _answers(f"http://127.0.0.1:{port}/api"), 60)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return ask(url) == 200
    except OSError:
        return False


def test_the_page_works_behind_jupyter_server_proxy(gated: Any, jupyter: str) -> None:
    link = urlsplit(gated.dashboard_link)
    (token,) = parse_qs(link.query)["token"]
    base = f"http://{jupyter}/proxy/{link.port}"
    assert ask(f"{base}/workflow") == 401
    with urllib.request.urlopen(f"{base}/individual-plots.json", timeout=60) as listing:
        assert "/individual-workflow" in json.load(listing).values()
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with browser.open(
        urllib.request.Request(f"{base}/workflow?token={token}", headers={"Accept": "text/html"})
    ) as page:
        assert page.url == f"{base}/workflow"
        assert b'id="myTopnav"' in page.read()
    cookie = "; ".join(f"{one.name}={one.value}" for one in jar)
    socket_url = f"ws://{jupyter}/proxy/{link.port}/workflow/ws"
    assert socket_opens(socket_url, Origin=f"http://{jupyter}", Cookie=cookie) == 101
    assert socket_opens(socket_url, Origin="http://evil.example", Cookie=cookie) in (401, 403, 404)
