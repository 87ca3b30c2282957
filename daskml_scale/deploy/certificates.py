"""TLS for one cluster: an authority that exists for a moment, one certificate for its nodes and one for clients.

The authority's key is never kept, so nobody can add a member later. Everybody in the cluster shows a certificate and
checks the other's; who has none gets no connection. The client's three files lie in a folder that only the user can
open; nodes get theirs through standard input. Needs ``cryptography``, which comes with the extra ``ssh``.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskml_scale.spec.cluster import Certificates

DAYS = 365
"""A cluster that is older than this has to be started anew."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, both PEM. The key is not in the text of this object."""

    cert: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """What a cluster's members trust, and the two identities that it signed."""

    ca: str
    node: Identity
    client: Identity

    def security(self) -> Any:
        """Return the `distributed.Security` of the driver's end."""
        return _security(self.ca, self.client)

    def node_security(self) -> Any:
        """Return the `distributed.Security` of schedulers and workers, to be sent to them and never shown."""
        return _security(self.ca, self.node)

    def write(self, folder: Path) -> Certificates:
        """Write the client's files, readable by the user only, and return where they are."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        places = {}
        for name, text in (("ca", self.ca), ("cert", self.client.cert), ("key", self.client.key)):
            path = folder / f"{name}.pem"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            places[name] = str(path)
        return Certificates(**places)


def _security(ca: str, own: Identity) -> Any:
    from distributed import Security

    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        **{f"tls_{role}_cert": own.cert for role in roles},
        **{f"tls_{role}_key": own.key for role in roles},
    )


def new_authority(name: str) -> Authority:
    """Make the certificates of one cluster.

    Parameters
    ----------
    name : str
        Of the cluster; it is in the certificates.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def named(role: str) -> Any:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:50]} {role}")])

    signer = ec.generate_private_key(ec.SECP256R1())
    ca = _signed(named("authority"), named("authority"), signer.public_key(), signer, authority=True)

    def identity(role: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        return Identity(_signed(named(role), named("authority"), key.public_key(), signer, authority=False), _pem(key))

    return Authority(ca, identity("node"), identity("client"))


def _pem(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    return str(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    )


def _signed(subject: Any, issuer: Any, public: Any, signer: Any, *, authority: bool) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of hosts differ
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(
            usage(member=not authority, authority=authority), critical=True
        )  # Python 3.13 asks an authority for it
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return str(made.public_bytes(serialization.Encoding.PEM).decode())


def usage(*, member: bool, authority: bool) -> Any:
    """Return what a key may be used for: a member signs handshakes, an authority certificates."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=member, key_cert_sign=authority, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
