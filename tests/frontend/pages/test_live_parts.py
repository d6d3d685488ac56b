"""Pages that stay open: what their head and their side say changes with what stands between, and they hear of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import MissionState, StopScope
from agents.models import McpServer, Mission
from agents.servers import services as servers
from agents.services.runs import RunSandboxes
from budgets import services as budgets
from budgets.types import Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.clusters.types import ExitReason, SandboxPhase
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import selectors as governance_reads
from governance import services as governance
from governance.approval_models import BreakGlass
from governance.choices import ReviewVerdict
from governance.models import Action

from .live_parts import Hints, again, heard, hints, parts_of
from .spending import spend

__all__ = ["hints"]
SignIn = Callable[..., Client]


def opened(browser: Client, address: str, *arguments: Any) -> str:
    response = browser.get(reverse(address, args=arguments))
    assert response.status_code == 200
    return str(response.content.decode())


def body_of(response: Any, status: int) -> str:
    assert response.status_code == status
    return str(response.content.decode())


def test_a_stop_that_was_lifted_is_so_at_its_head_too(world: Any, alice: User, signed_in: SignIn, hints: Hints) -> None:
    made = agents.stop(actor=world.owner, scope=StopScope.AGENT, scope_id=world.agent.pk, reason="Look first")
    browser = signed_in(alice)
    page = opened(browser, "stop", made.pk)
    assert "Lift the stop</button>" in parts_of(page)["stop-head"]
    told = hints(lambda: agents.ask_to_lift(actor=world.owner, stop_id=made.pk, resume=False))
    for name in ("stop-head", "stop-body", "stop-aside"):
        assert heard(page, name, told), name
    head = again(browser, page, "stop-head")
    assert "Lifted" in head
    assert "Lift the stop</button>" not in head
    assert "Paused by it" not in again(browser, page, "stop-aside")


def test_a_stop_whose_lifting_waits_offers_it_to_nobody_again(
    world: Any, alice: User, dana: User, signed_in: SignIn, hints: Hints
) -> None:
    made = agents.stop(actor=world.owner, scope=StopScope.TEAM, scope_id=world.team.pk)
    browser = signed_in(alice)
    page = opened(browser, "stop", made.pk)
    told = hints(lambda: agents.ask_to_lift(actor=world.owner, stop_id=made.pk, resume=False))
    assert heard(page, "stop-head", told)
    assert "Lift the stop</button>" not in again(browser, page, "stop-head")


def test_an_action_that_becomes_unknown_offers_to_be_settled(
    world: Any, alice: User, signed_in: SignIn, hints: Hints
) -> None:
    action = world.begin("books__customer", invoice="INV-0199").started
    browser = signed_in(alice)
    page = opened(browser, "action", action.pk)
    assert "Settle it" not in page
    told = hints(
        lambda: governance.record_outcome_of(holder=world.as_run, started=action, outcome="unknown", error="gone")
    )
    names = ("action-head", "action-body", "action-settle", "action-aside")
    assert all(heard(page, name, told) for name in names)
    head, _, settle, aside = (again(browser, page, name) for name in names)
    assert "Outcome unknown" in head
    assert "Settle it</button>" in settle
    assert "held" in aside
    response = browser.post(reverse("action-settle", args=[action.pk]), {"outcome": "success", "reason": " "})
    refused = body_of(response, 422)
    assert "data-changed" in parts_of(refused)["action-settle"], "what was typed waits for who typed it"
    governance.reconcile(actor=world.owner, action_id=action.pk, outcome="success", reason="It is in the book.")
    assert "Settle it" not in again(browser, refused, "action-settle")
    assert "Outcome unknown" not in again(browser, refused, "action-head")
    late = body_of(
        browser.post(reverse("action-settle", args=[action.pk]), {"outcome": "failure", "reason": "No"}), 409
    )
    assert "known already" in late
    assert "known already" not in "".join(parts_of(late).values()), "the next hint takes the parts anew"


def test_an_open_inbox_hears_of_whom_its_reader_stands_in_for_and_of_the_groups_they_are_put_into(
    world: Any, as_nadia: Principal, bob: User, dana: User, as_dana: Principal, signed_in: SignIn, hints: Hints
) -> None:
    group = governance.save_group(actor=as_nadia, name="Directors", member_ids=[dana.pk])
    governance.save_route(actor=as_nadia, route=governance.Route(name="All", group_id=group.pk))
    world.ask_credit("240.00")
    browser = signed_in(bob)
    page, waits = opened(browser, "approvals"), "240.00"
    assert waits not in again(browser, page, "approvals-inbox")
    begin, end = now(), now() + timedelta(days=1)
    told = hints(
        lambda: governance.delegate(
            actor=as_dana, from_user_id=dana.pk, to_user_id=bob.pk, starts_at=begin, ends_at=end
        )
    )
    assert heard(page, "approvals-inbox", told)
    assert waits in again(browser, page, "approvals-inbox")
    (delegation,) = governance_reads.delegations(as_dana)
    told = hints(lambda: governance.end_delegation(actor=as_dana, delegation_id=delegation.pk))
    assert heard(page, "approvals-inbox", told)
    assert waits not in again(browser, page, "approvals-inbox")
    everybody = [dana.pk, bob.pk]
    told = hints(
        lambda: governance.save_group(actor=as_nadia, group_id=group.pk, name="Directors", member_ids=everybody)
    )
    assert heard(page, "approvals-inbox", told)
    assert waits in again(browser, page, "approvals-inbox")


def test_broken_glass_that_was_reviewed_is_so_on_every_open_page(
    world: Any, as_nadia: Principal, bob: User, dana: User, as_dana: Principal, signed_in: SignIn, hints: Hints
) -> None:
    question = world.ask_credit()
    reason = "The payment run closes in five minutes."
    broken = governance.break_glass(actor=as_nadia, escalation_id=question.pk, version=1, reason=reason)
    browser = signed_in(bob)
    page = opened(browser, "broken-glass")
    assert "Record the review" in parts_of(page)["broken-glass"]
    told = hints(
        lambda: governance.review_break_glass(
            reviewer=as_dana, break_glass_id=broken.pk, verdict=ReviewVerdict.JUSTIFIED, note="It was right"
        )
    )
    assert heard(page, "broken-glass", told)
    assert "Record the review" not in again(browser, page, "broken-glass")
    late = browser.post(reverse("broken-glass-review", args=[broken.pk]), {"verdict": "x", "note": "x"})
    assert again(browser, body_of(late, 422), "broken-glass")


def test_an_agent_that_retires_and_comes_back_is_told_of(
    world: Any, alice: User, signed_in: SignIn, hints: Hints
) -> None:
    agents.stop(actor=world.owner, scope=StopScope.MISSION, scope_id=world.mission.pk)
    browser = signed_in(alice)
    page, listed = opened(browser, "agent", world.agent.pk), opened(browser, "agents")
    for change, offered in ((agents.retire_agent, "Bring it back"), (agents.reinstate_agent, "Retire the agent")):
        told = hints(lambda change=change: change(actor=world.owner, agent_id=world.agent.pk))
        assert heard(page, "agent-head", told)
        assert heard(page, "agent-body", told)
        assert heard(listed, "agent-rows", told)
        assert offered in again(browser, page, "agent-head")
        assert hints(lambda change=change: change(actor=world.owner, agent_id=world.agent.pk)) == set()


def test_a_server_that_was_switched_off_offers_to_be_switched_on(
    world: Any, nadia: User, as_nadia: Principal, signed_in: SignIn, hints: Hints
) -> None:
    browser = signed_in(nadia)
    page = opened(browser, "server", world.server.pk)
    told = hints(lambda: servers.switch_server(actor=as_nadia, server_id=world.server.pk, on=False))
    for name in ("server-head", "server-body", "server-aside"):
        assert heard(page, name, told), name
    assert "Switch on" in again(browser, page, "server-head")
    assert McpServer.objects.get(pk=world.server.pk).state == "disabled"


def test_a_budget_that_was_frozen_offers_its_release_and_has_its_question_ready(
    world: Any, finn: User, as_finn: Principal, signed_in: SignIn, hints: Hints
) -> None:
    account_id = world.account_of("team", world.team.pk)
    browser = signed_in(finn)
    page = opened(browser, "budget", account_id)
    told = hints(lambda: budgets.freeze(actor=as_finn, account_id=account_id, reason="Looks odd"))
    assert heard(page, "budget-body", told)
    body = again(browser, page, "budget-body")
    assert 'hx-select-oob="#budget-lead,#budget-actions,#budget-numbers"' in body  # the same answer renews its frame
    assert '<dialog id="release"' in body
    assert 'data-opens="release"' in opened(browser, "budget", account_id).partition('id="budget-actions"')[2]


def test_a_mission_that_pauses_by_itself_is_told_of_to_the_lists(
    world: Any, alice: User, signed_in: SignIn, hints: Hints
) -> None:
    browser = signed_in(alice)
    home, listed, page = (
        opened(browser, "home"),
        opened(browser, "missions"),
        opened(browser, "mission", world.mission.pk),
    )
    sandbox = world.run.sandbox
    sandbox.observed_phase, sandbox.exit_reason = SandboxPhase.EXITED, ExitReason.WALL_CLOCK
    sandbox.save()
    told = hints(lambda: RunSandboxes().on_change(sandbox=sandbox))
    assert Mission.objects.get(pk=world.mission.pk).state == MissionState.PAUSED
    assert heard(home, "home-live", told)
    assert heard(listed, "mission-rows", told)
    assert heard(page, "mission-head", told)


def test_a_mission_that_can_not_go_on_after_a_stop_says_so_in_the_trail_and_to_the_lists(
    world: Any, alice: User, as_finn: Principal, signed_in: SignIn, hints: Hints
) -> None:
    browser = signed_in(alice)
    listed, page = opened(browser, "missions"), opened(browser, "mission", world.mission.pk)
    made = agents.stop(actor=world.owner, scope=StopScope.AGENT, scope_id=world.agent.pk)
    agents.ask_to_lift(actor=world.owner, stop_id=made.pk, resume=True)
    account_id = world.account_of("mission", world.mission.pk)
    budgets.freeze(actor=as_finn, account_id=account_id, reason="Looks odd")
    before = Entry.objects.filter(event="mission.paused").count()
    told = hints(agents.resume_lifted)
    mission = Mission.objects.get(pk=world.mission.pk)
    assert (mission.state, mission.paused_by_id) == (MissionState.PAUSED, None)
    assert heard(page, "mission-head", told)
    assert heard(listed, "mission-rows", told)
    entry = Entry.objects.filter(event="mission.paused").latest("id")
    assert Entry.objects.filter(event="mission.paused").count() == before + 1
    assert (entry.subject_id, entry.payload["reason"]) == (mission.pk, mission.state_reason)
    assert "It could not go on after the stop" in mission.state_reason
    assert not Action.objects.filter(state="executing").exists()
    assert hints(agents.resume_lifted) == set()


def test_a_stop_and_its_end_are_on_every_open_page_of_the_organisation_at_once(
    world: Any, alice: User, charlie: User, signed_in: SignIn, hints: Hints
) -> None:
    browser, elsewhere = signed_in(alice), signed_in(charlie)
    page, foreign = opened(browser, "costs"), opened(elsewhere, "costs")
    team = {"scope": StopScope.TEAM, "scope_id": world.team.pk}
    told = hints(lambda: agents.stop(actor=world.owner, **team, reason="Look first"))
    assert heard(page, "warnings", told)
    assert not heard(foreign, "warnings", told)
    assert "The team Receivables is stopped." in again(browser, page, "warnings")
    assert "is stopped." not in again(elsewhere, foreign, "warnings")
    made = agents.stop(actor=world.owner, scope=StopScope.AGENT, scope_id=world.agent.pk)
    told = hints(lambda: agents.ask_to_lift(actor=world.owner, stop_id=made.pk, resume=False))
    assert heard(page, "warnings", told)
    assert "The agent" not in again(browser, page, "warnings")


def test_broken_glass_and_a_limit_that_is_near_are_on_every_open_page_at_once(
    world: Any,
    as_nadia: Principal,
    as_dana: Principal,
    as_finn: Principal,
    nadia: User,
    signed_in: SignIn,
    hints: Hints,
) -> None:
    browser, question = signed_in(nadia), world.ask_credit()
    page, reason = opened(browser, "costs"), "The payment run closes in five minutes."
    break_it = functools.partial(governance.break_glass, actor=as_nadia, escalation_id=question.pk, version=1)
    assert heard(page, "warnings", hints(lambda: break_it(reason=reason)))
    assert "Nadia broke the glass." in again(browser, page, "warnings")
    review = functools.partial(governance.review_break_glass, reviewer=as_dana, verdict=ReviewVerdict.JUSTIFIED)
    glass = BreakGlass.objects.get()
    assert heard(page, "warnings", hints(lambda: review(break_glass_id=glass.pk, note="It was right")))
    assert "broke the glass" not in again(browser, page, "warnings")
    spend(world, "0.90")
    account = world.account_of("team", world.team.pk)
    limit = functools.partial(budgets.set_limit, actor=as_finn, account_id=account, window=WindowKind.MONTH)
    assert heard(page, "warnings", hints(lambda: limit(limits=Limits(Decimal(1)))))
    assert "of its limit for this month." in again(browser, page, "warnings")
    assert heard(page, "warnings", hints(lambda: limit(limits=Limits(Decimal(50)))))
    assert "of its limit" not in again(browser, page, "warnings")
