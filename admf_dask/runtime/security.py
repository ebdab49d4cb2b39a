"""Who may talk to a local cluster: a temporary certificate, the user's own, or nobody asks.

Whoever reaches a Dask scheduler's port can run code as its owner, and on a shared host every local user reaches loopback.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path

from distributed import Security

from admf_dask.errors import ConfigError


def make_security(
    choice: str | Mapping[str, str] | Security | None, folder: str | os.PathLike[str] | None = None
) -> Security | None:
    """`"auto"`: a temporary certificate; `"none"` or None: plain TCP; paths `{ca_file, cert, key}`; or a Security as it is.

    The temporary certificate lies in `folder`, a private one of this machine; without it in memory only.

    Raises ConfigError for anything else.
    """
    if choice is None or choice == "none":
        return None
    if choice == "auto":
        return temporary_security(folder)
    if isinstance(choice, Security):
        return choice
    if isinstance(choice, Mapping) and {"ca_file", "cert", "key"} == set(choice):
        roles = {
            f"tls_{role}_{part}": choice[part] for role in ("client", "scheduler", "worker") for part in ("cert", "key")
        }
        return Security(require_encryption=True, tls_ca_file=choice["ca_file"], **roles)
    raise ConfigError(
        f"security must be 'auto', 'none', paths {{ca_file, cert, key}} or a distributed.Security, but got {choice!r}"
    )


def temporary_security(folder: str | os.PathLike[str] | None) -> Security:
    """A key pair and certificate for the life of one cluster.

    In `folder`, where there is one: what is in memory only, Dask writes to a temporary folder of its own for each connection, and
    a worker that is killed at that moment leaves the key there.

    An elliptic-curve key (P-256): made in under a millisecond and quicker in every handshake than the RSA key of
    `Security.temporary()`.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dask-internal")])
    now = datetime.datetime.now(tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("dask-internal")]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    public = certificate.public_bytes(pem).decode()
    if folder is not None:
        public, secret = _written(Path(folder, "tls.crt"), public), _written(Path(folder, "tls.key"), secret)
    roles = {
        f"tls_{role}_{part}": text
        for role in ("client", "scheduler", "worker")
        for part, text in (("cert", public), ("key", secret))
    }
    return Security(require_encryption=True, tls_ca_file=public, **roles)


def _written(path: Path, text: str) -> str:
    """A new file that only its owner can read."""
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    return str(path)
