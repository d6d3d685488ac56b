"""Where Remit would connect to for somebody: nowhere but the public internet, however the address is spelled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from agents.servers.addresses import address_problem, resolve, url_problem
from agents.servers.links import HttpLink, NotSent
from agents.servers.types import Limits, ServerFault
from controlplane.config import configuration

INSIDE = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "198.18.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2001:0:a9fe:a9fe::1", "64:ff9b:1::1", "fec0::1", "::a9fe:a9fe", "::10.0.0.1", "::ffff:0:10.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_refused(address: str) -> None:
    assert address_problem(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert address_problem(ipaddress.ip_address(address)) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.com/mcp", "ftp://mcp.example.com/", "file:///etc/passwd", "https://", "https://user:pw@mcp.example.com/",
        "https://10.0.0.1/mcp", "https://[::ffff:10.0.0.1]/mcp", "https://mcp.example.com:0/", "https://mcp.example.com:99999/",
        "https://mcp.example.com\\@10.0.0.1/", "https://mcp.еxample.com/", "https://mcp.example.com/\r\nHost: evil", "gopher://x",
        "http://localhost/mcp", "http://127.0.0.1:8000/mcp", "http://127.0.0.1.example.com/mcp",
    ],
)  # fmt: skip
def test_urls_nobody_should_register_are_refused(url: str) -> None:
    assert url_problem(url)


def test_this_machine_is_reachable_only_where_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration(), "mcp_allow_loopback", True)
    assert url_problem("http://127.0.0.1:8000/mcp") == ""
    assert url_problem("http://localhost:8000/mcp") == ""
    assert url_problem("http://127.0.0.1.example.com/mcp")
    assert address_problem(ipaddress.ip_address("::1")) == ""
    assert address_problem(ipaddress.ip_address("10.0.0.1"))


def names_point_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_a_name_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names_point_to(monkeypatch, "93.184.216.34", "10.0.0.7")
    with pytest.raises(ServerFault) as caught:
        await resolve("mcp.example.com", 443)
    assert caught.value.code == "upstream.address_refused"


async def test_a_name_that_points_inside_by_now_is_refused_at_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_problem("https://mcp.example.com/mcp") == ""
    names_point_to(monkeypatch, "169.254.169.254")
    link = HttpLink("https://mcp.example.com/mcp", Limits())
    with pytest.raises(NotSent) as caught:
        await link.request("ping", {}, seconds=5, headers={})
    await link.close()
    assert caught.value.code == "upstream.address_refused"
