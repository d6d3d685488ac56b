"""The headers by which Remit shows a server who asks, and keeping what is secret in them out of everything that comes
back. Opened in memory for one connection; never written down."""

from __future__ import annotations

import asyncio
import base64
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any

import httpx2
import pydantic_core

from agents.choices import CredentialKind
from agents.servers.addresses import capped, guarded_client
from agents.servers.types import SealedCredential, ServerAddress, ServerFault
from controlplane.common.envelope import unseal
from controlplane.common.errors import RemitError
from controlplane.common.redaction import REMOVED

_LARGEST_TOKEN_ANSWER = 64 * 1024
_TOKEN_SECONDS = 10.0
_SHORTEST_LIFE = 30.0
_EARLY_SECONDS = 60.0
_DEFAULT_LIFE = 300.0


def belongs_to(server_id: uuid.UUID) -> str:
    """What a server's envelope is bound to."""
    return f"server:{server_id}"


class Presenter:
    """For one connection. `headers()` may ask a token endpoint; `scrub()` takes the secrets out of what came back."""

    def __init__(self, server: ServerAddress) -> None:
        self._credential = server.credential
        self._server_id = server.id
        self._token = ""
        self._token_until = 0.0
        self._secrets: set[str] = set()
        self._lock = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        """Raises ServerFault before anything was sent to the server: `upstream.credential`, or what the token endpoint
        did wrong."""
        credential = self._credential
        if credential is None:
            return {}
        secret = self._opened(credential)
        if credential.kind is CredentialKind.BEARER:
            return {"authorization": f"Bearer {secret}"}
        if credential.kind is CredentialKind.HEADER:
            return {credential.header: secret}
        async with self._lock:
            if time.monotonic() >= self._token_until:
                await self._fetch_token(credential, secret)
        return {"authorization": f"Bearer {self._token}"}

    def scrub(self, value: Any) -> Any:
        """The same value with every secret of this connection replaced, in keys and texts, at any depth."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self._without_secrets(value)
        if isinstance(value, list):
            return [self.scrub(item) for item in value]
        if isinstance(value, Mapping):
            return {self._without_secrets(str(key)): self.scrub(item) for key, item in value.items()}
        return value

    def forget_token(self) -> None:
        """The server refused it: the next request fetches another."""
        self._token_until = 0.0

    def _opened(self, credential: SealedCredential) -> str:
        try:
            secret = unseal(credential.envelope, belongs_to=belongs_to(self._server_id))
        except RemitError as error:
            raise ServerFault("upstream.credential", error.message) from error
        self._secrets.add(secret)
        return secret

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        return text

    async def _fetch_token(self, credential: SealedCredential, secret: str) -> None:
        """Client credentials (RFC 6749, 4.4), the secret in the Authorization header. A client of its own: connections
        are kept by address, and two names may share one."""
        form = {"grant_type": "client_credentials", **({"scope": credential.scope} if credential.scope else {})}
        pair = f"{urllib.parse.quote_plus(credential.client_id)}:{urllib.parse.quote_plus(secret)}"
        basic = base64.b64encode(pair.encode()).decode()
        self._secrets.add(basic)
        client = guarded_client(connect_seconds=_TOKEN_SECONDS)
        try:
            async with (
                asyncio.timeout(_TOKEN_SECONDS),
                client.stream(
                    "POST",
                    credential.token_url,
                    data=form,
                    headers={"authorization": f"Basic {basic}", "accept": "application/json"},
                ) as response,
            ):
                content = b"".join([chunk async for chunk in capped(response, _LARGEST_TOKEN_ANSWER)])
                status = response.status_code
        except TimeoutError:
            raise _no_token(f"it did not answer within {_TOKEN_SECONDS:g} seconds") from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _no_token(f"it could not be reached ({type(error).__name__})") from error
        finally:
            await client.aclose()
        if status != 200:
            raise _no_token(f"it answered with HTTP status {status}")
        self._token, life = _token_of(content)
        self._token_until = time.monotonic() + max(_SHORTEST_LIFE, life - _EARLY_SECONDS)
        self._secrets.add(self._token)


def _token_of(content: bytes) -> tuple[str, float]:
    try:
        answer = pydantic_core.from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise _no_token("its answer is not JSON") from error
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not 1 <= len(token) <= 8192 or not token.isascii() or not token.isprintable():
        raise _no_token("its answer holds no usable access token")
    if str(answer.get("token_type", "bearer")).lower() != "bearer":
        raise _no_token("its token is not a bearer token")
    life = answer.get("expires_in")
    return token, float(life) if isinstance(life, int | float) and 0 < life < 10**7 else _DEFAULT_LIFE


def _no_token(why: str) -> ServerFault:
    return ServerFault("upstream.credential", f"Its token endpoint gave no token: {why}.")
