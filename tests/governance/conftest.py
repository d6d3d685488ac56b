"""The gate with a scene that a test can set, a ledger that counts, and what an administrator sets up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, Role
from governance import registry, services
from governance.approval_models import ApprovalRoute, ApproverGroup
from governance.bundles import forget
from governance.judging import endpoints
from governance.services import Route

from .connected_judge import BRIEF, connect
from .counting_ledger import CountingLedger
from .gate import Gate
from .model_server import ModelServer, model_server
from .questions import MakeGroup
from .scene import Scene, SignOff, ToolCall, make_run


@pytest.fixture
def scene(team: Team) -> Scene:
    return Scene(team_id=team.pk, mission_id=new_id(), agent_id=new_id())


@pytest.fixture
def ledger(db: None) -> Iterator[CountingLedger]:
    before = list(registry._LEDGER)
    counting = CountingLedger()
    registry.register_ledger(counting)
    yield counting
    registry._LEDGER[:] = before


@pytest.fixture
def as_worker(scene: Scene, northwind: Organisation) -> Principal:
    """One run of the scene's mission."""
    return make_run(scene, northwind)


@pytest.fixture
def gate(scene: Scene, ledger: CountingLedger, as_worker: Principal) -> Iterator[Gate]:
    kinds = dict(registry._KINDS)
    registry._KINDS.update({kind.code: kind for kind in (ToolCall(scene), SignOff(scene))})
    forget()
    services.ensure_baseline()
    yield Gate(scene, ledger, as_worker)
    registry._KINDS.clear()
    registry._KINDS.update(kinds)
    forget()


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """`at_once(call, times, threads=8)`: the results or errors of calls made on real connections at the same time."""

    def run(call: Callable[[int], Any], times: int, *, threads: int = 8) -> list[Any]:
        def one(number: int) -> Any:
            try:
                return call(number)
            except Exception as error:
                return error
            finally:
                connection.close()

        with ThreadPoolExecutor(max_workers=threads) as pool:
            return list(pool.map(one, range(times)))

    return run


@pytest.fixture
def make_group(as_nadia: Principal) -> MakeGroup:
    def make(name: str, *people: User) -> ApproverGroup:
        return services.save_group(actor=as_nadia, name=name, member_ids=[person.pk for person in people])

    return make


@pytest.fixture
def route(as_nadia: Principal) -> Callable[..., ApprovalRoute]:
    def make(name: str = "All", **fields: Any) -> ApprovalRoute:
        return services.save_route(actor=as_nadia, route=Route(name=name, **fields))

    return make


@pytest.fixture
def approvers(make_person: Any, northwind: Any) -> list[User]:
    """Three more approvers of the whole organisation."""
    return [make_person(name, northwind, Role.APPROVER) for name in ("Olga", "Piet", "Quinn")]


@pytest.fixture
def model(gate: Gate, settings: Any) -> Iterator[ModelServer]:
    """A connected judge, and a kind of action that policy wants judged."""
    gate.scene.context = {"judge": True}
    gate.scene.brief = BRIEF
    with model_server() as script:
        connect(settings, script.url)
        yield script
    while endpoints._CLIENTS:
        endpoints._CLIENTS.pop().close()
