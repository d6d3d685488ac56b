"""Missions: listed, drafted, started, changed, paused, stopped, judged; and their runs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agents import selectors, services
from agents.catalogue import start_from_template
from agents.catalogue.trying import try_call
from agents.choices import ENDED_MISSION_STATES, Importance
from agents.grants import parse_grants
from agents.models import Mission
from agents.rewording import preview_change
from agents.services.starting import check_wording
from controlplane.common.errors import conflict
from controlplane.tenancy.selectors import currency_of
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, operation, stale_is_412
from frontend.api.shapes import missions as shapes
from frontend.api.shapes.common import JudgementOut, ReasonBody
from frontend.pages import zone_of
from governance.types import Judgement

_CLAIM = (
    "The mission ends by it, for good. Where the agent has claimed something else since you read, the answer is 409 "
    "`mission.claim_changed` with the new claim."
)


class MissionResource(Resource):
    tag = "missions"

    def mission(self, mission_id: uuid.UUID, permission: Permission | None = None) -> Mission:
        """Raises 404, and 403 for those who may see it but not do this."""
        found = selectors.mission(self.principal, mission_id)
        if permission is not None:
            self.require(permission, found.team_id)
        return found

    def changeable(self, mission_id: uuid.UUID) -> Mission:
        """Raises 409 `mission.ended` too."""
        mission = self.mission(mission_id, Permission.MISSION_WRITE)
        if mission.state in ENDED_MISSION_STATES:
            raise conflict("mission.ended", "This mission is over, so its remit stays as it is.", "Start a new one.")
        return mission

    def shown(self, mission_id: uuid.UUID, *, status: int = 200) -> HttpResponseBase:
        data = self.detail(mission_id)
        location = f"/api/v1/missions/{mission_id}"
        return self.item(data, version=data["latest_version"], status=status, location=location)

    def answered(self, mission_id: uuid.UUID, judgement: Judgement | None) -> HttpResponseBase:
        data = self.detail(mission_id)
        said = JudgementOut(judgement).data if judgement is not None else None
        return self.item({"judgement": said, "mission": data}, version=data["latest_version"])

    def detail(self, mission_id: uuid.UUID) -> dict[str, Any]:
        row = selectors.mission_rows(self.principal, [self.mission(mission_id)])[0]
        return shapes.detail_of(row)


class Missions(MissionResource):
    @operation(
        "missions_list",
        "List missions",
        permission=Permission.MISSION_VIEW,
        query=shapes.MissionQuery,
        answer=shapes.MissionOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        query = self.query
        filters = selectors.Filters(
            states=[query["state"]] if "state" in query else (),
            outcome=query.get("outcome", ""),
            agent_id=query.get("agent"),
            team_id=query.get("team"),
            owner_id=query.get("owner"),
            asking=query["asking"],
            text=query["q"],
        )
        return self.page(selectors.missions(self.principal, filters), self._rows)

    @operation(
        "missions_create",
        "Draft a mission",
        permission=Permission.MISSION_WRITE,
        body=shapes.MissionBody,
        answer=shapes.MissionDetail,
        status=201,
        one_transaction=False,  # a template's files are made outside any transaction
        about="Nothing starts before it is submitted.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        body = self.body
        if "template" in body:
            mission = start_from_template(
                actor=self.principal,
                team_id=body["team_id"],
                code=body["template"],
                values=body.get("values", {}),
                agent_id=body.get("agent_id"),
                to_reword=body.get("to_reword", False),
            )
        else:
            mission = services.draft_mission(
                actor=self.principal,
                agent_id=body["agent_id"],
                title=body["title"],
                remit=shapes.remit_from(body["remit"], currency=currency_of(self.principal)),
            )
        return self.shown(mission.pk, status=201)

    def _rows(self, missions: Sequence[Mission]) -> list[Any]:
        return list(shapes.MissionOut(selectors.mission_rows(self.principal, missions), many=True).data)


class MissionItem(MissionResource):
    @operation("missions_get", "Read a mission", permission=Permission.MISSION_VIEW, answer=shapes.MissionDetail)
    def get(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(mission_id)


class MissionVersions(MissionResource):
    @operation(
        "missions_versions",
        "List a mission's wordings",
        permission=Permission.MISSION_VIEW,
        answer=shapes.RemitOut,
        listed=True,
        about="The newest first, all on one page.",
    )
    def get(self, request: Request, mission_id: uuid.UUID) -> Response:
        versions = self.mission(mission_id).versions.all()
        return self.whole(versions, shapes.RemitOut)


class MissionSubmit(MissionResource):
    @operation(
        "missions_submit",
        "Start a drafted mission, or ask for its sign-off",
        permission=Permission.MISSION_OPERATE,
        answer=shapes.MissionAnswer,
        one_transaction=False,  # the judge may be asked
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        return self.answered(mission_id, services.submit_mission(actor=self.principal, mission_id=mission_id))


class MissionChange(MissionResource):
    @operation(
        "missions_change",
        "Change a mission's remit",
        permission=Permission.MISSION_WRITE,
        body=shapes.ChangeBody,
        answer=shapes.MissionAnswer,
        if_match=True,
        one_transaction=False,  # the judge may be asked
        about="Takes the whole remit. What widens it waits for a second person; the rest is in force at once.",
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        mission = self.mission(mission_id, Permission.MISSION_WRITE)
        latest = shapes.latest_of(mission).number
        self.must_match(latest)
        with stale_is_412("mission.changed_meanwhile"):
            judgement = services.change_mission(
                actor=self.principal,
                mission_id=mission_id,
                remit=shapes.remit_from(self.body["remit"], currency=mission.organisation.currency),
                note=self.body["note"],
                expected_version=latest,
            )
        return self.answered(mission_id, judgement)


class MissionPreviewChange(MissionResource):
    @operation(
        "missions_preview_change",
        "See what a change of the remit would do",
        permission=Permission.MISSION_WRITE,
        body=shapes.PreviewChangeBody,
        answer=shapes.RewordingOut,
        about="What widens, narrows or only changes, and what the gate would say. Nothing is written or asked.",
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> Response:
        mission = self.changeable(mission_id)
        remit = shapes.remit_from(self.body["remit"], currency=mission.organisation.currency)
        check_wording("kept", remit)
        found = preview_change(
            actor=self.principal,
            mission=mission,
            current=selectors.version_in_force(mission),
            remit=remit,
            zone=zone_of(self.principal),
        )
        return Response(shapes.RewordingOut(found).data)


class MissionTryCall(MissionResource):
    @operation(
        "missions_try_call",
        "See what the gate would say to a call",
        permission=Permission.MISSION_WRITE,
        body=shapes.TryBody,
        answer=shapes.FindingOut,
        about="As the first call of an attempt at the mission. Nothing is proposed, held or written.",
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> Response:
        mission = self.changeable(mission_id)
        current = selectors.version_in_force(mission)
        given = self.body.get("grants", current.grants)
        found = try_call(
            actor=self.principal,
            mission=mission,
            tool=self.body["tool"],
            arguments=self.body["arguments"],
            grants=parse_grants([dict(grant) for grant in given]),
            importance=Importance(self.body.get("importance", current.importance)),
        )
        return Response(shapes.FindingOut(found).data)


class MissionMoreBudget(MissionResource):
    @operation(
        "missions_ask_for_budget",
        "Ask for more budget",
        permission=Permission.MISSION_OPERATE,
        body=shapes.MoreBudgetBody,
        answer=shapes.MissionAnswer,
        one_transaction=False,  # the judge may be asked
        about="A person who did not ask decides.",
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        mission = self.mission(mission_id, Permission.MISSION_OPERATE)
        money = self.body["money"]
        shapes.amount_from(money, currency=mission.organisation.currency, pointer="/money")
        judgement = services.ask_for_budget(
            actor=self.principal,
            mission_id=mission_id,
            money=money["amount"],
            reason=self.body["reason"],
            key=uuid.uuid5(mission_id, request.headers["Idempotency-Key"]),
        )
        return self.answered(mission_id, judgement)


class MissionPause(MissionResource):
    @operation(
        "missions_pause",
        "Pause a mission",
        permission=Permission.MISSION_OPERATE,
        body=ReasonBody,
        answer=shapes.MissionDetail,
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        services.pause_mission(actor=self.principal, mission_id=mission_id, reason=self.body["reason"])
        return self.shown(mission_id)


class MissionResume(MissionResource):
    @operation(
        "missions_resume", "Resume a mission", permission=Permission.MISSION_OPERATE, answer=shapes.MissionDetail
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        services.resume_mission(actor=self.principal, mission_id=mission_id)
        return self.shown(mission_id)


class MissionStop(MissionResource):
    @operation(
        "missions_stop",
        "Stop a mission for good",
        permission=Permission.MISSION_OPERATE,
        body=ReasonBody,
        answer=shapes.MissionDetail,
        one_transaction=False,  # what is stopped is killed after the commit, before this returns
        about="Permits and tokens die, questions are withdrawn, holds released, sandboxes deleted.",
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        services.stop_mission(actor=self.principal, mission_id=mission_id, reason=self.body["reason"])
        return self.shown(mission_id)


class MissionAccept(MissionResource):
    @operation(
        "missions_accept",
        "Accept what a mission's agent claims",
        permission=Permission.MISSION_OPERATE,
        body=shapes.AcceptBody,
        answer=shapes.MissionDetail,
        about=_CLAIM,
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        services.accept_outcome(actor=self.principal, mission_id=mission_id, claim=self.body["claim"])
        return self.shown(mission_id)


class MissionReject(MissionResource):
    @operation(
        "missions_reject",
        "Reject what a mission's agent claims",
        permission=Permission.MISSION_OPERATE,
        body=shapes.RejectBody,
        answer=shapes.MissionDetail,
        about=_CLAIM,
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> HttpResponseBase:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        services.reject_outcome(actor=self.principal, mission_id=mission_id, **self.body)
        return self.shown(mission_id)


class MissionRunToken(MissionResource):
    @operation(
        "missions_issue_run_token",
        "Issue the token of an external run",
        permission=Permission.MISSION_OPERATE,
        answer=shapes.RunTokenOut,
        about="An earlier one dies.",
    )
    def post(self, request: Request, mission_id: uuid.UUID) -> Response:
        self.mission(mission_id, Permission.MISSION_OPERATE)
        return Response({"token": services.issue_run_token(actor=self.principal, mission_id=mission_id)})


class Runs(MissionResource):
    tag = "runs"

    @operation(
        "runs_list",
        "List runs",
        permission=Permission.MISSION_VIEW,
        query=shapes.RunQuery,
        answer=shapes.RunOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = selectors.runs(
            self.principal, self.query.get("mission"), agent_id=self.query.get("agent"), state=self.query.get("state")
        )
        return self.page(rows, shapes.RunOut)

    @operation(
        "runs_create",
        "Start another attempt",
        permission=Permission.MISSION_OPERATE,
        body=shapes.RunBody,
        answer=shapes.RunOut,
        status=201,
    )
    def post(self, request: Request) -> HttpResponseBase:
        mission = self.mission(self.body["mission_id"], Permission.MISSION_OPERATE)
        run = services.restart_run(actor=self.principal, mission_id=mission.pk)
        return self.item(shapes.RunOut(run).data, version=run.state, status=201, location=f"/api/v1/runs/{run.pk}")


class RunItem(Resource):
    tag = "runs"

    @operation("runs_get", "Read a run", permission=Permission.MISSION_VIEW, answer=shapes.RunOut)
    def get(self, request: Request, run_id: uuid.UUID) -> HttpResponseBase:
        run = selectors.run(self.principal, run_id)
        return self.item(shapes.RunOut(run).data, version=run.state)
