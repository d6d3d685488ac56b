"""What a template is made of, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from agents.choices import Runtime
from agents.grants import Grant
from agents.servers.types import MountRequest, ToolTraits


@dataclass(frozen=True)
class Field:
    """One form field. `kind`: text, money, hours, choice. Values arrive and are kept as text."""

    name: str
    label: str
    kind: str
    default: str = ""
    hint: str = ""
    choices: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ServerNeed:
    """A stdio server that must be registered in the organisation before the mission can use it."""

    slug: str
    name: str
    environment: str
    command: Sequence[str]
    mounts: Sequence[MountRequest] = ()
    traits: Mapping[str, ToolTraits] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """An action people can try against the gate before they start (“what would the gate say”)."""

    title: str
    tool: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Template:
    """`files` makes the mission's own folder (a book, a repository) before it starts; called outside any
    transaction."""

    code: str
    name: str
    sentence: str
    usual_cost: Decimal  # in the organisation's currency, as its prices are
    icon: str
    runtime: Runtime
    agent_name: str
    program: str
    goal: str
    criteria: Sequence[str]
    grants: Sequence[Grant]
    budget: Decimal
    steps: int
    tokens: int
    fields: Sequence[Field]
    servers: Sequence[ServerNeed] = ()
    capabilities: Sequence[str] = ()
    samples: Sequence[Sample] = ()
    wall_clock_seconds: int = 3600
    usual_cost_per: str = ""  # “a call”; empty: for the whole mission
    files: Callable[[Path], None] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_yours(self) -> bool:
        """Only a beginning: the agent is somebody's own, and so may be the tools that it is granted in the end."""
        return self.runtime is Runtime.EXTERNAL
