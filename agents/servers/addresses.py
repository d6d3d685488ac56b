"""Where Remit may connect to on a server's behalf: https on the public internet, re-checked at every connection."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2

from agents.servers.types import ServerFault
from controlplane.config import configuration

# Faults that come before the first byte is sent.
NEVER_CONNECTED = frozenset({"upstream.address_refused", "upstream.unreachable"})
_CARRIER_GRADE = ipaddress.ip_network("100.64.0.0/10")
_LOOPBACK = ipaddress.IPv6Address("::1")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Each leads to an IPv4 address, or into a site, in a way the registries call global or leave unnamed.
_DISCARDS = (
    ipaddress.ip_network("::/96"),
    ipaddress.ip_network("::ffff:0:0:0/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("fec0::/10"),
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def url_problem(url: str) -> str:
    """Why Remit would never connect to this URL, whatever its name resolves to; empty when it may be tried."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "It is not a web address."
    host = parts.hostname or ""
    if not host or parts.scheme not in ("http", "https") or port == 0:
        return "It is not an http:// or https:// address."
    if parts.username or parts.password:
        return "It carries a user name or password; those do not belong into an address."
    if any(character.isspace() or not character.isprintable() for character in url) or "\\" in url or not url.isascii():
        return "It has characters that readers of addresses disagree about."
    literal = _literal(host)
    if parts.scheme == "http" and not (_is_loopback_name(host, literal) and configuration().mcp_allow_loopback):
        return "It must be https://. Plain http:// is for this machine only, and only with REMIT_MCP_ALLOW_LOOPBACK=1."
    return address_problem(literal) if literal else ""


def address_problem(address: Address) -> str:
    """Why this resolved address is out of bounds; empty when it is public (or loopback, where that is allowed)."""
    plain = _unwrapped(address)
    if plain is None:
        return f"{address} tunnels to an address of another network."
    if plain.is_loopback:
        allowed = configuration().mcp_allow_loopback
        return "" if allowed else f"{address} is this machine; set REMIT_MCP_ALLOW_LOOPBACK=1 to allow that."
    # `is_global` follows the registries: private, link-local (where metadata services live) and reserved are not.
    if not plain.is_global or plain.is_multicast or (plain.version == 4 and plain in _CARRIER_GRADE):
        return f"{address} is not an address of the public internet."
    return ""


async def resolve(host: str, port: int) -> Address:
    """One address to connect to. Every address the name has must be allowed: one bad one is reason enough to refuse."""
    literal = _literal(host)
    if literal:
        found = [literal]
    else:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ServerFault("upstream.unreachable", f"The name {host} could not be resolved.") from error
        found = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
    if not found:
        raise ServerFault("upstream.unreachable", f"The name {host} has no address.")
    for address in found:
        problem = address_problem(address)
        if problem:
            raise ServerFault("upstream.address_refused", f"{host}: {problem}")
    return found[0]


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """Connects to the very address that was checked, so that a name can't point elsewhere between check and connect.

    Redirects are answers like any other here; each request made of one is checked again. Compressed bodies are refused:
    a cap on bytes read would not bound what they unpack to.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        problem = url_problem(str(request.url))
        if problem:
            raise ServerFault("upstream.address_refused", problem)
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        address = await resolve(host, port)
        pinned = httpx2.Request(
            request.method,
            _pinned(request.url, str(address)),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        response = await super().handle_async_request(pinned)
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            await response.aclose()
            raise ServerFault("upstream.garbage", "It answered with a compressed body it was not asked for.")
        return response


@functools.lru_cache(maxsize=256)
def _pinned(url: httpx2.URL, address: str) -> httpx2.URL:
    return url.copy_with(host=address)


def guarded_client(*, connect_seconds: float) -> httpx2.AsyncClient:
    """A client without proxies, cookies kept, redirects followed or credentials of this machine."""
    return httpx2.AsyncClient(
        transport=GuardedTransport(verify=_tls(), trust_env=False),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(connect_seconds, read=None),
        headers={"accept-encoding": "identity", "user-agent": "Remit"},
    )


async def capped(response: httpx2.Response, limit: int) -> AsyncIterator[bytes]:
    """The body, until it is larger than `limit`."""
    received = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        if received > limit:
            raise ServerFault("upstream.result_too_large", f"It sent more than {limit} bytes; reading stopped there.")
        yield chunk


@functools.cache
def _tls() -> ssl.SSLContext:
    """The certificates of this machine, read once: it takes longer than a whole call."""
    return httpx2.create_ssl_context(trust_env=False)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _is_loopback_name(host: str, literal: Address | None) -> bool:
    return literal.is_loopback if literal else host == "localhost" or host.endswith(".localhost")


def _unwrapped(address: Address) -> Address | None:
    """The IPv4 address inside an IPv6 one where it is only wrapped; None for tunnels, which lead anywhere."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address != _LOOPBACK and any(address in network for network in _DISCARDS):
        return None
    return address
