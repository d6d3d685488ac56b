"""An edited call is judged in the order of every other decision: its run first, the organisation's budget last."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import connection, transaction

from agents import services as agents
from agents.models import McpServer, McpTool, Mission
from budgets.models import Window
from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.types import Principal
from governance import sequence, services
from governance.models import Escalation
from governance.types import Proposal
from tests.agents.conftest import TOOL
from tests.agents.lock_waits import somebody_waits

pytestmark = pytest.mark.django_db(transaction=True)


def test_who_waits_for_the_run_holds_no_budget_up(
    start: Callable[..., Mission], books: McpServer, person: Callable[[str], Principal]
) -> None:
    McpTool.objects.filter(qualified_name=TOOL).update(effects=["egress"])
    mission = start()
    token = agents.issue_run_token(actor=person("alice"), mission_id=mission.pk)
    run = tenancy.principal_of_token(token)
    proposal = Proposal(kind="tool.call", tool=TOOL, arguments={"amount": "0.40"}, audience="mcp")
    services.propose(proposer=run, proposal=proposal)
    question = Escalation.objects.get()

    def edit() -> object:
        try:
            return services.edit_and_approve(
                approver=person("bob"),
                escalation_id=question.pk,
                version=question.version,
                arguments={"amount": "0.30"},
                reason="Less is enough.",
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            sequence.await_run(run.run_id)
            editing = pool.submit(edit)
            waits = somebody_waits()
            free = len(Window.objects.select_for_update(skip_locked=True))
        edited = editing.result(20)
    assert waits
    assert free == Window.objects.count()
    assert edited.held_up is None
    question.refresh_from_db()
    assert question.state == "superseded"


def test_an_edit_beside_an_approval_of_the_same_question_ends_neither_in_a_deadlock(
    start: Callable[..., Mission], books: McpServer, person: Callable[[str], Principal]
) -> None:
    McpTool.objects.filter(qualified_name=TOOL).update(effects=["egress"])
    mission = start()
    run = tenancy.principal_of_token(agents.issue_run_token(actor=person("alice"), mission_id=mission.pk))
    bob = person("bob")

    def told(act: Callable[[], object]) -> str:
        try:
            act()
        except RemitError as error:
            return error.code
        finally:
            connection.close()
        return ""

    for cents in range(10, 22):
        proposal = Proposal(kind="tool.call", tool=TOOL, arguments={"amount": f"0.{cents}"}, audience="mcp")
        question = Escalation.objects.get(action_id=services.propose(proposer=run, proposal=proposal).action_id)
        facts = {"approver": bob, "escalation_id": question.pk, "version": question.version}
        edit = partial(
            services.edit_and_approve, **facts, arguments={"amount": f"0.0{cents}"}, reason="Less is enough."
        )
        approve = partial(services.decide, **facts, approve=True, reason="")
        with ThreadPoolExecutor(2) as pool:
            codes = sorted(pool.map(told, (edit, approve)))
        assert codes[0] == "", codes
        assert codes[1] in ("escalation.changed", "escalation.closed", "edit.refused"), codes
