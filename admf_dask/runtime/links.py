"""The link to the page that works where the user sits: plain, behind a proxy, or at the end of an ssh tunnel."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

PAGE = "runs"


def page_link(environment: Mapping[str, str], host: str, port: int, page: str = PAGE) -> str:
    """The address to open. Behind JupyterHub or jupyter-server-proxy the path that it proxies; in VS Code its own address."""
    if template := environment.get("VSCODE_PROXY_URI"):
        return f"{template.replace('{{port}}', str(port)).rstrip('/')}/{page}"
    prefix = environment.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix and _is_loopback(host):
        base = environment.get("JUPYTERHUB_PUBLIC_URL") or environment.get("JUPYTERHUB_HOST", "")
        base = base.split(prefix)[0].rstrip("/")
        return f"{base}{prefix.rstrip('/')}/proxy/{port}/{page}"
    return f"http://{host}:{port}/{page}"


def reached(environment: Mapping[str, str], link: str) -> str:
    """A link of Dask's to a scheduler on this machine, as it works where the user sits; others as they are."""
    parts = urlsplit(link)
    if parts.scheme != "http" or not parts.port or not _is_loopback(str(parts.hostname)):
        return link
    return page_link(environment, str(parts.hostname), parts.port, parts.path.lstrip("/"))


def origins(environment: Mapping[str, str], host: str, port: int) -> list[str] | None:
    """Where a page that a server of ours has sent may talk to it from: its own address, and that of the proxy before it.

    JupyterHub often does not tell its own address: then None, and each request has to show that it is `from_the_proxy`.
    """
    link = urlsplit(page_link(environment, host, port))
    if not link.netloc:
        return None
    own = [host, "localhost", "127.0.0.1"] if _is_loopback(host) else [host]
    # A browser leaves the usual port of a scheme out, and Bokeh then takes it for 80, of https too.
    return list(dict.fromkeys([*(f"{name}:{port}" for name in own), f"{link.hostname}:{link.port or 80}"]))


def from_the_proxy(headers: Mapping[str, str]) -> bool:
    """Whether a request came through a proxy, from a page of the address that the proxy itself was asked at.

    A browser cannot be made to say that it was forwarded, so a page elsewhere that finds the port by itself is refused, and one
    that goes through the proxy with the user's cookie is of another origin than the host it asks.
    """
    origin, asked = urlsplit(headers.get("Origin", "")).netloc, headers.get("Host", "")
    return bool(asked) and origin.lower() == asked.lower() and "X-Forwarded-For" in headers


def tunnel(environment: Mapping[str, str], host: str, port: int) -> str | None:
    """The command to type on one's own machine when this one was reached by ssh; None where the link works as it is."""
    connection = environment.get("SSH_CONNECTION", "").split()
    known = ("VSCODE_PROXY_URI", "JUPYTERHUB_SERVICE_PREFIX", "VSCODE_IPC_HOOK_CLI")
    if not connection or not _is_loopback(host) or any(name in environment for name in known):
        return None
    user = environment.get("USER") or getpass.getuser()
    # The address by which the client reached this machine, and the port unless it is the usual one.
    server = connection[2] if len(connection) == 4 else socket.gethostname()
    option = f" -p {connection[3]}" if len(connection) == 4 and connection[3] != "22" else ""
    return f"ssh{option} -N -L {port}:{host}:{port} {user}@{server}"


def _is_loopback(host: str) -> bool:
    return host in ("127.0.0.1", "localhost", "::1")
