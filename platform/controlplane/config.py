"""The one typed reading of the environment. Every process validates it at start and names what is wrong."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from controlplane.common.sockets import gateway_socket, socket_folder

ROOT = Path(__file__).resolve().parents[2]
_DOMAIN_RULE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+=[a-z0-9-]+(/[a-z0-9-]+)?", re.IGNORECASE)


class ConfigurationError(SystemExit):
    """Raised with a sentence that names the variable and the remedy; ends the process with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 2
        self.message = message

    def __str__(self) -> str:
        return self.message


class Configuration(BaseSettings):
    """Environment of a Remit process. Names without a prefix are the field's own; ours begin with REMIT_."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    database_url: str = Field(default="", description="postgresql://…; libpq URLs, a socket directory as ?host=")
    redis_url: str = Field(default="", description="redis://… or unix:///path")
    secret_key: str = Field(
        default="", description="At least 32 characters; signs sessions and permits, keys token hashes"
    )
    allowed_hosts: str = Field(
        default="localhost,127.0.0.1,[::1]", description="Host names people and agents use, separated by commas"
    )
    public_url: str = Field(
        default="http://localhost:8000",
        description="Address in links; https:// here makes cookies Secure and sends HSTS",
    )
    state_dir: Path = Field(
        default=ROOT / ".remit",
        validation_alias=AliasChoices("STATE_DIR"),
        description="Folder of static files, sockets, and what the embedded servers keep",
    )
    email_url: str = Field(
        default="console://",
        description="console:// prints mail; smtp://user:password@host:587?tls=1&from=remit@host or smtps://… sends it",
    )
    oidc_issuer: str = Field(
        default="", description="Issuer for sign-in with OpenID Connect, as its discovery document names it"
    )
    oidc_client_id: str = Field(default="", description="Client id at that issuer")
    oidc_client_secret: str = Field(default="", description="Client secret at that issuer")
    oidc_name: str = Field(default="single sign-on", description="What the sign-in button calls the issuer")
    oidc_domains: str = Field(
        default="",
        description="Who joins uninvited, reading only: domain=organisation[/team] by slug, apart by commas",
    )
    judge_url: str = Field(
        default="",
        description="OpenAI-compatible address of the judge, https://host/v1; several separated by commas; empty: off",
    )
    judge_model: str = Field(default="", description="The judge's model; one for each address, or one for all")
    judge_key: str = Field(default="", description="Bearer key of the judge; one for each address")
    judge_seconds: float = Field(
        default=8.0,
        gt=0,
        le=60,
        validation_alias=AliasChoices("REMIT_JUDGE_SECONDS"),
        description="Longest wait for the judge; then a person is asked, or what can't be undone is refused",
    )
    judge_daily_tokens: int = Field(
        default=2_000_000,
        ge=0,
        validation_alias=AliasChoices("REMIT_JUDGE_DAILY_TOKENS"),
        description="Tokens a day that an organisation's judge may use when its budget is first opened",
    )
    prepared_statements: bool = Field(
        default=True,
        validation_alias=AliasChoices("REMIT_PREPARED_STATEMENTS"),
        description="Plan the statements of every decision once a connection; off behind a pooler without them",
    )
    otlp_endpoint: str = Field(
        default="", description="Collector for Remit's own spans, https://host:4318; empty: nothing is recorded"
    )
    log_format: Literal["json", "text"] = Field(
        default="json",
        validation_alias=AliasChoices("REMIT_LOG_FORMAT"),
        description="json: one object per line; text: for reading in a terminal",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias=AliasChoices("REMIT_LOG_LEVEL"), description="Least severe lines to write"
    )
    sample_pace: str = Field(
        default="",
        description="Seconds the sample agents pause between calls; empty for a pace people can watch",
        validation_alias=AliasChoices("REMIT_SAMPLE_PACE"),
    )
    executing_limit_seconds: int = Field(
        default=900,
        ge=5,
        description="Seconds after which an action that runs and says nothing is unknown, for a person to settle",
        validation_alias=AliasChoices("REMIT_EXECUTING_LIMIT_SECONDS"),
    )
    api_requests_a_minute: int = Field(
        default=600,
        ge=1,
        validation_alias=AliasChoices("REMIT_API_REQUESTS_A_MINUTE"),
        description="Requests to /api/v1 that one token, or one signed-in person, may make in a minute",
    )
    api_actions_a_minute: int = Field(
        default=12_000,
        ge=1,
        validation_alias=AliasChoices("REMIT_API_ACTIONS_A_MINUTE"),
        description="Requests to /api/v1/actions that one token may make in a minute",
    )
    metrics_token: str = Field(
        default="",
        validation_alias=AliasChoices("REMIT_METRICS_TOKEN"),
        description="Bearer token that may read /metrics; without one only clients of this machine may",
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=5,
        validation_alias=AliasChoices("REMIT_TRUSTED_PROXIES"),
        description="Proxies in front that append to X-Forwarded-For; sign-in limits count the address before them",
    )
    audit_key: str = Field(
        default="",
        validation_alias=AliasChoices("REMIT_AUDIT_KEY"),
        description="64 hex digits, the Ed25519 key that signs the audit trail; empty: a file in the state folder",
    )
    secrets_key: str = Field(
        default="",
        validation_alias=AliasChoices("REMIT_SECRETS_KEY"),
        description="64 hex digits that wrap servers' credentials; a new one goes in front; empty: from SECRET_KEY",
    )
    debug: bool = Field(
        default=False,
        validation_alias=AliasChoices("REMIT_DEBUG"),
        description="Shows the inside of errors in the browser; never where others can reach it",
    )
    mcp_allow_loopback: bool = Field(
        default=False,
        validation_alias=AliasChoices("REMIT_MCP_ALLOW_LOOPBACK"),
        description="MCP servers registered by address may be on this machine and speak plain http",
    )

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if value and len(value) < 32:
            raise ValueError("must have at least 32 characters; make one with `openssl rand -hex 32`")
        return value

    @field_validator("audit_key")
    @classmethod
    def _thirty_two_bytes(cls, value: str) -> str:
        if value and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            raise ValueError("must be 64 hex digits; make one with `openssl rand -hex 32`")
        return value

    @field_validator("secrets_key")
    @classmethod
    def _wraps(cls, value: str) -> str:
        if not all(re.fullmatch(r"[0-9a-fA-F]{64}", part.strip()) for part in value.split(",") if part.strip()):
            raise ValueError("must be 64 hex digits, several apart by commas; make one with `openssl rand -hex 32`")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str) -> str:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        try:
            ports = str(conninfo_to_dict(value).get("port") or "5432").split(",") if value else []
        except ProgrammingError:
            ports = [""]
        if not all(port.isascii() and port.isdigit() for port in ports):
            raise ValueError("must be where PostgreSQL is: postgresql://user:password@host:5432/remit")
        return value

    @field_validator("redis_url")
    @classmethod
    def _valkey(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be redis://host:6379/0, rediss://… or unix:///path/to/socket")
        return value

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        parts = urlsplit(value.rstrip("/"))
        if not _is_web_address(value) or parts.path or parts.query or parts.fragment:
            raise ValueError("must be an http:// or https:// address without a path, as people type it into a browser")
        return value.rstrip("/")

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, value: str) -> str:
        if "/" in value:
            raise ValueError("must be names without http:// or a path, separated by commas: remit.example,localhost")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        if value and not _is_web_address(value):
            raise ValueError("must be an http:// or https:// address, such as https://collector:4318")
        return value

    @field_validator("sample_pace")
    @classmethod
    def _seconds(cls, value: str) -> str:
        if value and not 0 <= float(value) <= 60:  # float() names what is none
            raise ValueError("must be seconds from 0 to 60")
        return value

    @model_validator(mode="after")
    def _judge_has_a_model(self) -> Configuration:
        if self.judge_url and not self.judge_model:
            raise ValueError("JUDGE_URL is set but JUDGE_MODEL is not: name the model that judges")
        urls = [url.strip() for url in self.judge_url.split(",") if url.strip()]
        if not all(_is_web_address(url) for url in urls):
            raise ValueError("JUDGE_URL must be http:// or https:// addresses, separated by commas")
        if urls and len(self.judge_model.split(",")) not in (1, len(urls)):
            raise ValueError("JUDGE_MODEL must name one model for all addresses of JUDGE_URL, or one for each")
        if urls and len(self.judge_key.split(",")) > len(urls):
            raise ValueError("JUDGE_KEY has more keys than JUDGE_URL has addresses")
        return self

    @field_validator("email_url")
    @classmethod
    def _mail_address(cls, value: str) -> str:
        parts = urlsplit(value)
        sends = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and _has_a_port_or_none(value)
        if parts.scheme != "console" and not sends:
            raise ValueError("must be console:// or an address such as smtp://user:password@host:587?tls=1")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("must be an https:// address; plain http only on this machine")
        return value

    @field_validator("oidc_domains")
    @classmethod
    def _domains(cls, value: str) -> str:
        if value and not all(_DOMAIN_RULE.fullmatch(rule.strip()) for rule in value.split(",")):
            raise ValueError("reads acme.example=acme or acme.example=acme/team, several apart by commas")
        return value

    @model_validator(mode="after")
    def _oidc_is_whole(self) -> Self:
        given = {"OIDC_ISSUER": self.oidc_issuer, "OIDC_CLIENT_ID": self.oidc_client_id}
        missing = [name for name, value in given.items() if not value]
        if len(missing) == 1:
            raise ValueError(
                f"{missing[0]} is not set; sign-in with OpenID Connect needs OIDC_ISSUER and OIDC_CLIENT_ID"
            )
        return self

    @property
    def sends_mail(self) -> bool:
        return not self.email_url.startswith("console")

    @property
    def secure(self) -> bool:
        """True when people reach Remit over TLS: cookies become Secure, HSTS is sent."""
        return self.public_url.startswith("https://")

    @property
    def gateway_socket(self) -> Path:
        """Unix socket on which the web process also serves, for sandboxes that have no network."""
        return gateway_socket(self.state_dir)

    @property
    def node_socket(self) -> Path:
        """Unix socket of the local node, the process that owns local sandboxes."""
        return socket_folder(self.state_dir) / "node.sock"


def _is_web_address(value: str) -> bool:
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and _has_a_port_or_none(value)


def _has_a_port_or_none(value: str) -> bool:
    try:
        return urlsplit(value).port != 0
    except ValueError:
        return False


@functools.cache
def configuration() -> Configuration:
    """Read and validate the environment once per process.

    What is not set there is taken from `<state folder>/environment`, which `manage.py up` writes: so a command in
    another terminal finds the embedded servers and the key.
    """
    state = Path(os.environ.get("STATE_DIR") or ROOT / ".remit")
    try:
        return Configuration(_env_file=state / "environment")  # type: ignore[call-arg]  # an option, not a field
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()]
        message = "Configuration is not usable.\n  " + "\n  ".join(lines)
        sys.stderr.write(message + "\n")  # an exit with a number prints nothing by itself
        raise ConfigurationError(message) from error
