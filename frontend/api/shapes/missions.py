"""Missions, their remits and runs as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from agents.choices import ChangeKind, CheckState, Importance, MissionState, Outcome, RunState, VersionState
from agents.grants import parse_grants
from agents.models import Mission, MissionVersion
from agents.remits import Remit
from agents.types import MissionRow
from controlplane.common.errors import FieldError, invalid
from frontend.api.fields import Body, Choice, Flag, Id, Json, ListQuery, Moment, MoneyIn, MoneyOut, Text, Whole
from frontend.api.shapes.common import BalanceOut, GivenReasonBody, JudgementOut, Reference
from governance.choices import Verdict

_MOST_GRANTS = 200


class AcceptBody(Body):
    claim = Text(max_length=40, help_text="The `at` of the claim you read.")


class RejectBody(AcceptBody, GivenReasonBody):
    pass


class GrantShape(serializers.Serializer):  # type: ignore[type-arg]
    """One tool it may call. `constraints`: argument → rules, such as
    {"amount": {"max": "40.00", "max_total": "100.00"}}: 40.00 a call, 100.00 over the whole mission."""

    tool = serializers.CharField()
    effect = serializers.ChoiceField(["allow", "escalate"])
    constraints = Json()
    max_calls = serializers.IntegerField(allow_null=True)
    sentence = serializers.CharField(allow_blank=True)


class GrantIn(Body):
    tool = Text(max_length=200)
    effect = Choice(["allow", "escalate"], required=False)
    constraints = Json(required=False)
    max_calls = Whole(min_value=1, required=False, allow_null=True)
    sentence = Text(max_length=300, required=False, allow_blank=True)


class RemitOut(serializers.Serializer):  # type: ignore[type-arg]
    """One wording of a remit."""

    number = serializers.IntegerField()
    state = serializers.ChoiceField(VersionState.values)
    goal = serializers.CharField()
    criteria = serializers.ListField(child=serializers.CharField())
    grants = GrantShape(many=True)
    budget = MoneyOut("budget_money")
    budget_tokens = serializers.IntegerField(allow_null=True)
    budget_steps = serializers.IntegerField(allow_null=True)
    deadline = Moment()
    importance = serializers.ChoiceField(Importance.values)
    residency = serializers.CharField(allow_blank=True)
    widens = serializers.BooleanField()
    change_note = serializers.CharField(allow_blank=True)
    created_at = Moment()
    signed_off_at = Moment(allow_null=True)


class RemitIn(Body):
    goal = Text(max_length=4000)
    criteria = serializers.ListField(child=Text(max_length=300), min_length=1, max_length=30)
    grants = GrantIn(many=True, required=False, max_length=_MOST_GRANTS)  # type: ignore[call-arg]
    budget = MoneyIn()
    budget_tokens = Whole(min_value=1, max_value=10**12, required=False, allow_null=True)
    budget_steps = Whole(min_value=1, max_value=10**9, required=False, allow_null=True)
    deadline = Moment()
    importance = Choice(Importance.values, required=False, default=Importance.NORMAL.value)
    residency = Text(max_length=40, required=False, default="", allow_blank=True)


class CheckOut(serializers.Serializer):  # type: ignore[type-arg]
    position = serializers.IntegerField()
    text = serializers.CharField()
    state = serializers.ChoiceField(CheckState.values)
    evidence = serializers.CharField(allow_blank=True)
    note = serializers.CharField(allow_blank=True)


class MissionOut(serializers.Serializer):  # type: ignore[type-arg]
    """A mission as lists show it: how far it is, what is left, whom it waits for."""

    id = Id(source="mission.id")
    title = serializers.CharField(source="mission.title")
    goal = serializers.CharField()
    state = serializers.ChoiceField(MissionState.values, source="mission.state")
    state_reason = serializers.CharField(source="mission.state_reason", allow_blank=True)
    outcome = serializers.ChoiceField(Outcome.values, source="mission.outcome")
    template = serializers.CharField(source="mission.template", allow_blank=True)
    team = Reference(source="mission.team")
    agent = Reference(source="mission.agent")
    owner = Reference(source="mission.owner")
    version = serializers.IntegerField(source="mission.version", help_text="The version in force.")
    budget_id = Id(source="mission.account_id", allow_null=True)
    budget = BalanceOut(source="balance", allow_null=True)
    waiting = serializers.IntegerField(help_text="Open questions to people.")
    waits_for = serializers.CharField(allow_blank=True)
    deadline = Moment(source="mission.deadline", allow_null=True)
    created_at = Moment(source="mission.created_at")
    started_at = Moment(source="mission.started_at", allow_null=True)
    ended_at = Moment(source="mission.ended_at", allow_null=True)


class MissionDetail(MissionOut):
    """One mission with the remit in force, its checklist, and what its agent claims."""

    latest_version = serializers.IntegerField(help_text="The last wording; its ETag is what a change needs.")
    remit = RemitOut()
    checklist = CheckOut(many=True)
    claim = Json(allow_null=True)


def detail_of(row: MissionRow) -> dict[str, Any]:
    """Of a mission with its versions and checklist fetched."""
    mission = row.mission
    versions = list(mission.versions.all())
    in_force = next(version for version in versions if version.number == mission.version)
    return {
        **MissionOut(row).data,
        "latest_version": latest_of(mission).number,
        "remit": RemitOut(in_force).data,
        "checklist": CheckOut(mission.checklist.all(), many=True).data,
        "claim": mission.claim,
    }


def latest_of(mission: Mission) -> MissionVersion:
    return max(mission.versions.all(), key=lambda version: version.number)


class MissionAnswer(serializers.Serializer):  # type: ignore[type-arg]
    """What was asked for and what the gate said; null where the gate was not needed."""

    judgement = JudgementOut(allow_null=True)
    mission = MissionDetail()


class MissionQuery(ListQuery):
    state = serializers.ChoiceField(MissionState.values, required=False)
    outcome = serializers.ChoiceField(Outcome.values, required=False)
    agent = Id(required=False)
    team = Id(required=False)
    owner = Id(required=False)
    asking = serializers.BooleanField(required=False, default=False, help_text="Only with an open question.")
    q = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=100, help_text="In the title or agent's name."
    )


class MissionBody(Body):
    """From a template (`template`, `team_id`, `values`), or freely worded (`agent_id`, `title`, `remit`)."""

    template = Text(max_length=60, required=False)
    team_id = Id(required=False)
    values = serializers.DictField(child=Text(max_length=400, allow_blank=True), required=False)
    agent_id = Id(required=False, help_text="With a template: one that is registered, instead of the template's own.")
    to_reword = Flag(
        required=False,
        help_text="With a template: its remit is changed before it is submitted, so one for an agent of your own needs "
        "no server yet.",
    )
    title = Text(max_length=160, required=False)
    remit = RemitIn(required=False)

    def validate(self, attrs: Any) -> Any:
        templated, worded = {"template", "team_id"}, {"agent_id", "title", "remit"}
        if templated <= set(attrs) and not {"title", "remit"} & set(attrs):
            return attrs
        if worded <= set(attrs) and not (templated | {"values", "to_reword"}) & set(attrs):
            return attrs
        raise serializers.ValidationError("either template, team_id and values, or agent_id, title and remit")


class ChangeBody(Body):
    remit = RemitIn()
    note = Text(max_length=300, required=False, default="", allow_blank=True)


class PreviewChangeBody(Body):
    remit = RemitIn()


class TryBody(Body):
    """One call. Grants and importance are those in force where they are left out."""

    tool = Text(max_length=200)
    arguments = Json()
    grants = GrantIn(many=True, required=False, max_length=_MOST_GRANTS)  # type: ignore[call-arg]
    importance = Choice(Importance.values, required=False)


class RemitChangeOut(serializers.Serializer):  # type: ignore[type-arg]
    kind = serializers.ChoiceField(ChangeKind.values)
    text = serializers.CharField()
    note = serializers.CharField(allow_blank=True)


class FindingOut(serializers.Serializer):  # type: ignore[type-arg]
    """What the rules would say. Budget, history and judge can still refuse the real thing."""

    verdict = serializers.ChoiceField(Verdict.values)
    reason_code = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)
    remedies = serializers.ListField(child=serializers.CharField())


class RewordingOut(serializers.Serializer):  # type: ignore[type-arg]
    """`finding` is null for a mission that has not started, whose change asks nobody."""

    changes = RemitChangeOut(many=True)
    finding = FindingOut(allow_null=True)
    asks = Reference(many=True, source="whom.people", default=[], help_text="Who could answer now.")
    needed = serializers.IntegerField(source="whom.needed", default=0, help_text="Approvals it would need.")


class MoreBudgetBody(Body):
    money = MoneyIn()
    reason = Text(max_length=300)


class RunTokenOut(serializers.Serializer):  # type: ignore[type-arg]
    token = serializers.CharField(help_text="Shown this once.")


class RunOut(serializers.Serializer):  # type: ignore[type-arg]
    """One attempt at a mission."""

    id = Id()
    mission_id = Id()
    attempt = serializers.IntegerField()
    agent_version_id = Id()
    agent_version = serializers.IntegerField(source="agent_version.number")
    state = serializers.ChoiceField(RunState.values)
    desired = serializers.ChoiceField(["running", "stopped"])
    reason = serializers.CharField(allow_blank=True)
    sandbox_id = Id(allow_null=True)
    hold_id = Id(allow_null=True)
    created_at = Moment()
    started_at = Moment(allow_null=True)
    first_call_at = Moment(allow_null=True)
    ended_at = Moment(allow_null=True)


class RunQuery(ListQuery):
    mission = Id(required=False)
    agent = Id(required=False)
    state = serializers.ChoiceField(RunState.values, required=False)


class RunBody(Body):
    mission_id = Id()


def remit_from(data: Any, *, currency: str) -> Remit:
    """The remit a body words. Raises 422 naming every bad field, `money.currency` included."""
    return Remit(
        goal=data["goal"],
        criteria=list(data["criteria"]),
        grants=parse_grants([dict(grant) for grant in data.get("grants", [])]),
        budget_money=amount_from(data["budget"], currency=currency, pointer="/remit/budget"),
        deadline=data["deadline"],
        budget_tokens=data.get("budget_tokens"),
        budget_steps=data.get("budget_steps"),
        importance=Importance(data["importance"]),
        residency=data["residency"],
    )


def amount_from(data: Any, *, currency: str, pointer: str) -> Decimal:
    """The amount in the organisation's currency; another one is refused rather than converted."""
    given = data.get("currency", currency)
    if given != currency:
        raise invalid(
            "money.currency",
            f"Budgets here are in {currency}.",
            FieldError(f"{pointer}/currency", f"{currency}, or nothing"),
        )
    return Decimal(data["amount"])
