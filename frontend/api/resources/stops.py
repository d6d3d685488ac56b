"""Stops: made, proven, lifted."""

from __future__ import annotations

import uuid

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agents import services, stop_proofs, stops
from agents.choices import StopScope
from controlplane.tenancy.types import Permission
from frontend.api.fields import ListQuery
from frontend.api.operations import Resource, operation
from frontend.api.shapes import stops as shapes
from frontend.api.shapes.common import JudgementOut


class StopResource(Resource):
    tag = "stops"

    def shown(self, stop_id: uuid.UUID, *, status: int = 200) -> HttpResponseBase:
        stop = stops.stop_named(self.principal, stop_id)
        proofs = stop_proofs.proofs(stop) if stop.lifted_at is None else []
        data = {**shapes.StopOut(stop).data, "proofs": shapes.ProofOut(proofs, many=True).data}
        version = "lifted" if stop.lifted_at else "holds"
        location = f"/api/v1/stops/{stop_id}"
        return self.item(data, version=version, status=status, location=location)


class Stops(StopResource):
    @operation(
        "stops_list",
        "List stops",
        permission=Permission.MISSION_VIEW,
        query=ListQuery,
        answer=shapes.StopOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        return self.page(stops.stops(self.principal), shapes.StopOut)

    @operation(
        "stops_create",
        "Stop a run, a mission, an agent, a team or the organisation",
        permission=Permission.MISSION_OPERATE,
        body=shapes.StopBody,
        answer=shapes.StopDetail,
        status=201,
        one_transaction=False,  # what is stopped is killed after the commit, before this returns
        about="What is stopped already is answered as it is: two requests are one stop.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        body = self.body
        made = services.stop(
            actor=self.principal, scope=StopScope(body["scope"]), scope_id=body["scope_id"], reason=body["reason"]
        )
        return self.shown(made.pk, status=201)


class StopItem(StopResource):
    @operation("stops_get", "Read a stop with its proofs", permission=Permission.MISSION_VIEW, answer=shapes.StopDetail)
    def get(self, request: Request, stop_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(stop_id)


class StopLift(StopResource):
    @operation(
        "stops_lift",
        "Ask to lift a stop",
        permission=Permission.MISSION_OPERATE,
        body=shapes.LiftBody,
        answer=JudgementOut,
        one_transaction=False,  # the judge may be asked
        about="A team's or organisation's, and one over much money, waits for a second person.",
    )
    def post(self, request: Request, stop_id: uuid.UUID) -> Response:
        judgement = services.ask_to_lift(
            actor=self.principal, stop_id=stop_id, resume=self.body["resume"], reason=self.body["reason"]
        )
        return Response(JudgementOut(judgement).data)
