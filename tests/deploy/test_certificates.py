"""Certificates of one cluster, and the folder that keeps them."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'daskml-scale[ssh]'")

from daskml_scale.deploy.certificates import Authority, Identity, new_authority
from daskml_scale.deploy.places import KEPT_CLUSTERS, Place
from daskml_scale.storage.home import home


def handshake(server: Authority, identity: Identity, ca: str, folder: Path) -> bool:
    """Return whether both ends accept each other, in memory."""

    def context(purpose: ssl.Purpose, trusted: str, own: Identity) -> ssl.SSLContext:
        made = ssl.create_default_context(purpose, cadata=trusted)
        made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
        path = folder / "pair.pem"
        path.write_text(own.cert + own.key)
        made.load_cert_chain(path)
        return made

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = context(ssl.Purpose.CLIENT_AUTH, server.ca, server.node).wrap_bio(to_server, to_client, server_side=True)
    there = context(ssl.Purpose.SERVER_AUTH, ca, identity).wrap_bio(to_client, to_server)
    for _ in range(6):
        for end in (there, here):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return here.getpeercert(binary_form=True) is not None


def test_members_accept_each_other_and_nobody_of_another_cluster(tmp_path: Path):
    ours, others = new_authority("ours"), new_authority("others")
    assert handshake(ours, ours.client, ours.ca, tmp_path)
    assert not handshake(ours, others.client, ours.ca, tmp_path)
    assert not handshake(ours, ours.client, others.ca, tmp_path)


def test_a_key_is_in_no_text(tmp_path: Path):
    authority = new_authority("ours")
    shown = repr(authority) + repr(authority.security()) + str(authority.client)
    assert "PRIVATE" not in shown
    assert authority.client.key.splitlines()[1] not in shown


def test_files_are_for_the_user_only_and_never_overwritten(tmp_path: Path):
    made = new_authority("ours").write(tmp_path / "tls")
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert {Path(path).stat().st_mode & 0o777 for path in (made.ca, made.cert, made.key)} == {0o600}
    with pytest.raises(FileExistsError):
        new_authority("ours").write(tmp_path / "tls")


def test_logs_turn_over_and_stay_while_certificates_go():
    place = Place("one")
    place.make()
    new_authority("one").write(place.certificates)
    for _ in range(40):
        place.log("cpu-0", "%s {x}\n" + "y" * 2**18)
    place.close()
    assert sorted(path.name for path in place.logs.iterdir()) == ["cpu-0.log", "cpu-0.log.1"]
    assert (place.logs / "cpu-0.log").read_text().startswith("%s {x}\n")
    assert sum(path.stat().st_size for path in place.logs.iterdir()) <= 2 * (4 << 20)
    assert not place.certificates.exists()


def test_a_cluster_that_wrote_nothing_leaves_no_folder():
    place = Place("quiet")
    place.make()
    place.close()
    assert not place.folder.exists()


def test_the_next_cluster_tidies_up_after_drivers_that_were_killed():
    left = []
    for number in range(KEPT_CLUSTERS + 2):
        place = Place(f"dead-{number}")
        place.make()
        new_authority("dead").write(place.certificates)
        (place.folder / "owner.json").write_text(json.dumps([os.getpid(), 1.0]))  # somebody else had this number
        os.utime(place.logs, (number, number))
        left.append(place.folder)
    alive = Place("alive")
    alive.make()
    new_authority("alive").write(alive.certificates)
    last = Place("last")
    last.make()
    assert not list(home().glob("clusters/dead-*/tls"))
    assert [path.exists() for path in left] == [False] * 2 + [True] * KEPT_CLUSTERS
    assert alive.certificates.exists()
