"""Credentials of servers: sealed where they are kept, shown to their own server only, gone from what comes back."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from agents.choices import CredentialKind, ServerTestState, Transport
from agents.models import McpServer, McpTool, ServerCredential, ServerTest
from agents.servers import checking, credentials, selectors, services
from agents.servers.credentials import Credential
from agents.servers.pool import SessionPool
from agents.servers.presenting import belongs_to
from agents.servers.types import (
    Listing,
    PinnedTool,
    RunContext,
    SealedCredential,
    ServerAddress,
    UpstreamKind,
)
from controlplane.audit.models import Entry
from controlplane.common.envelope import seal, unseal
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal

pytestmark = pytest.mark.django_db

SECRET = "tok-0123456789abcdef"
OLD, NEW = "11" * 32, "22" * 32


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda value: monkeypatch.setattr(settings.CONFIG, "secrets_key", value)


def give(actor: Principal, row: McpServer, kind: CredentialKind = CredentialKind.BEARER, **fields: str) -> None:
    given = {"secret": SECRET, **fields}
    credentials.set_credential(actor=actor, server_id=row.pk, credential=Credential(kind=kind, **given))


def connect(actor: Principal, row: McpServer, **call: Any) -> ServerTest:
    test = checking.ask_for_test(actor=actor, server_id=row.pk, **call)
    checking.run_test(test.pk)
    test.refresh_from_db()
    return test


def echo(row: McpServer) -> McpTool:
    tool = McpTool.objects.get(server=row, name="echo")
    McpTool.objects.filter(pk=tool.pk).update(read_only=True)
    return tool


def test_what_is_kept_and_said_of_a_credential_never_holds_it(as_nadia: Principal, far: McpServer) -> None:
    give(as_nadia, far)
    row = ServerCredential.objects.get()
    kept = repr(ServerCredential.objects.values().get()) + repr(bytes(row.ciphertext)) + repr(bytes(row.wrapped_key))
    assert SECRET not in kept
    assert SECRET not in repr(Credential(CredentialKind.BEARER, SECRET))
    far.refresh_from_db()
    address = selectors.address_of(McpServer.objects.select_related("credential").get())
    assert SECRET not in repr(address)
    entry = Entry.objects.get(event="server.credential_set")
    assert SECRET not in json.dumps(entry.payload)
    assert unseal(credentials.envelope_of(row), belongs_to=belongs_to(far.pk)) == SECRET


def test_the_server_is_shown_it_and_what_comes_back_is_free_of_it(
    as_nadia: Principal, far: McpServer, upstream: Any
) -> None:
    give(as_nadia, far)
    upstream.description = f"Knows {SECRET}"
    assert connect(as_nadia, far).state == ServerTestState.PASSED
    assert {headers["authorization"] for headers in upstream.seen} == {f"Bearer {SECRET}"}
    assert echo(far).definition["description"] == "Knows [removed]"
    called = connect(as_nadia, far, tool_id=echo(far).pk, arguments={})
    assert called.state == ServerTestState.PASSED, called.steps
    assert "Bearer [removed]" in called.answer
    assert SECRET not in called.answer


def test_a_header_of_its_own(as_nadia: Principal, far: McpServer, upstream: Any) -> None:
    give(as_nadia, far, CredentialKind.HEADER, header="X-Api-Key")
    assert connect(as_nadia, far).state == ServerTestState.PASSED
    assert all(headers["x-api-key"] == SECRET and "authorization" not in headers for headers in upstream.seen)


def test_client_credentials_fetch_a_token_once_and_use_it(as_nadia: Principal, far: McpServer, upstream: Any) -> None:
    give(
        as_nadia, far, CredentialKind.CLIENT_CREDENTIALS, token_url=f"{upstream.base}/token", client_id="me", scope="x"
    )
    assert connect(as_nadia, far).state == ServerTestState.PASSED
    ((headers, body),) = upstream.token_requests
    assert headers["authorization"] == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert body == "grant_type=client_credentials&scope=x"
    assert {seen["authorization"] for seen in upstream.seen} == {"Bearer fetched-token-123"}
    assert all(SECRET not in json.dumps(seen) for seen in upstream.seen)


def test_a_redirect_is_not_followed_with_it(as_nadia: Principal, far: McpServer, upstream: Any) -> None:
    give(as_nadia, far)
    upstream.status = 307
    test = connect(as_nadia, far)
    assert test.state == ServerTestState.FAILED
    assert "redirect" in test.steps[-1]["said"]


def test_a_token_address_inside_the_network_is_refused(
    as_nadia: Principal, far: McpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("http://example.com/token", "https://169.254.169.254/latest", "https://10.0.0.1/token", "file:///x"):
        with pytest.raises(RemitError) as caught:
            give(as_nadia, far, CredentialKind.CLIENT_CREDENTIALS, token_url=url, client_id="me")
        assert [error.pointer for error in caught.value.errors] == ["/token_url"]
    assert not ServerCredential.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"secret": "short"},
        {"secret": "with space in it"},
        {"secret": "line\r\nX-Evil: 1"},
        {"secret": "x" * 5000},
        {"kind": CredentialKind.HEADER, "header": "Host"},
        {"kind": CredentialKind.HEADER, "header": "Mcp-Session-Id"},
        {"kind": CredentialKind.HEADER, "header": "X Bad"},
        {"kind": CredentialKind.HEADER, "header": "X-A\r\nB"},
        {"kind": CredentialKind.HEADER, "header": ""},
    ],
)
def test_what_could_be_another_header_is_refused(as_nadia: Principal, far: McpServer, fields: dict[str, Any]) -> None:
    with pytest.raises(RemitError) as caught:
        give(as_nadia, far, **fields)
    assert caught.value.code == "server.credential"
    assert not ServerCredential.objects.exists()


def test_an_envelope_moved_to_another_server_does_not_open(as_nadia: Principal, far: McpServer, nobody: Any) -> None:
    envelope = seal(SECRET, belongs_to=belongs_to(far.pk))
    with pytest.raises(RemitError) as caught:
        unseal(envelope, belongs_to=belongs_to(nobody))
    assert caught.value.code == "secret.unreadable"


def test_rotation_wraps_anew_and_the_old_key_can_go(
    as_nadia: Principal, far: McpServer, keys: Callable[[str], None], capsys: Any
) -> None:
    keys(OLD)
    give(as_nadia, far)
    before = ServerCredential.objects.get()
    keys(f"{NEW},{OLD}")
    call_command("secrets", "rotate")
    assert "1 wrapped with" in capsys.readouterr().out
    after = ServerCredential.objects.get()
    assert bytes(after.ciphertext) == bytes(before.ciphertext)
    assert after.key_id != before.key_id
    assert Entry.objects.filter(event="server.credential_rewrapped").count() == 1
    keys(NEW)
    assert unseal(credentials.envelope_of(after), belongs_to=belongs_to(far.pk)) == SECRET
    call_command("secrets", "rotate")
    assert "0 wrapped with" in capsys.readouterr().out


def test_rotation_without_the_old_key_changes_nothing_and_says_which(
    as_nadia: Principal, far: McpServer, keys: Callable[[str], None], upstream: Any
) -> None:
    keys(OLD)
    give(as_nadia, far)
    before = ServerCredential.objects.values().get()
    keys(NEW)
    with pytest.raises(CommandError, match="far"):
        call_command("secrets", "rotate")
    assert ServerCredential.objects.values().get() == before
    test = connect(as_nadia, far)
    assert test.state == ServerTestState.FAILED
    assert "can't be opened" in test.steps[0]["said"]
    assert upstream.seen == []


def test_who_may_not_write_servers_sets_and_takes_nothing(
    as_nadia: Principal, as_dana: Principal, as_charlie: Principal, as_run: Principal, far: McpServer
) -> None:
    give(as_nadia, far)
    before = ServerCredential.objects.values().get()
    for actor in (as_dana, as_charlie, as_run):
        with pytest.raises(RemitError):
            give(actor, far, secret="another-secret")
        with pytest.raises(RemitError):
            credentials.remove_credential(actor=actor, server_id=far.pk)
    assert ServerCredential.objects.values().get() == before


def test_a_program_in_our_sandbox_has_none(as_nadia: Principal) -> None:
    row = services.register_server(
        actor=as_nadia, name="Clock", slug="clock", transport=Transport.STDIO, environment="time"
    )
    with pytest.raises(RemitError):
        give(as_nadia, row)


async def test_a_connection_made_before_does_not_show_a_credential_that_was_replaced(upstream: Any) -> None:
    old, new = (
        ServerAddress(
            uuid.UUID(int=1), uuid.UUID(int=2), "far", Transport.HTTP, url=f"{upstream.base}/mcp",
            protocol_version="2025-11-25",
            credential=SealedCredential(CredentialKind.BEARER, seal(secret, belongs_to=belongs_to(uuid.UUID(int=1)))),
        )
        for secret in ("the-old-one", "the-new-one")
    )  # fmt: skip
    listings: list[Listing] = []

    async def on_listing(_: ServerAddress, listing: Listing) -> None:
        listings.append(listing)

    async def which_ended(_: Any) -> Any:
        return []

    pool = SessionPool(on_listing=on_listing, which_ended=which_ended)
    context = RunContext(uuid.uuid4(), uuid.uuid4())
    await pool.call_upstream(context, PinnedTool(uuid.uuid4(), old, "echo", "far__echo", ""), b"{}")
    sha256 = listings[0].tools[0].sha256
    for address, word in ((old, "old"), (old, "old"), (new, "new")):
        result = await pool.call_upstream(
            context, PinnedTool(uuid.uuid4(), address, "echo", "far__echo", sha256), b"{}"
        )
        assert result.kind is UpstreamKind.RESULT, result.message
        assert upstream.seen[-1]["authorization"] == f"Bearer the-{word}-one"
        assert f"the-{word}-one" not in json.dumps(result.content)
    assert len(listings) == 2
    await pool.close()
