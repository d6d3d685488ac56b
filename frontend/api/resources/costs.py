"""Costs: what accepted goals cost, down to the mission and its ledger lines. Reads sums only."""

from __future__ import annotations

import uuid

from rest_framework.request import Request
from rest_framework.response import Response

from budgets.costs import selectors
from budgets.costs.types import Span
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, operation
from frontend.api.shapes import costs as shapes


class CostResource(Resource):
    tag = "costs"

    def span(self) -> Span:
        today = tenancy.today_of(self.principal)
        return shapes.span_of(self.query, today=today)


class Costs(CostResource):
    @operation(
        "costs_get",
        "Read what every kind of goal cost",
        permission=Permission.COST_VIEW,
        query=shapes.SpanQuery,
        answer=shapes.ReportOut,
    )
    def get(self, request: Request) -> Response:
        span, currency = self.span(), tenancy.currency_of(self.principal)
        report = selectors.report(self.principal, span)
        return Response(
            {
                "first": span.first.isoformat(),
                "last": span.last.isoformat(),
                "goals": [shapes.goal_of(row, currency) for row in report.goals],
                "total": shapes.goal_of(report.total, currency),
                "check": shapes.check_of(report.check, currency),
            }
        )


class CostsOfGoal(CostResource):
    @operation(
        "costs_missions",
        "List what the missions of one kind of goal cost",
        permission=Permission.COST_VIEW,
        query=shapes.SpanListQuery,
        answer=shapes.CostMissionOut,
        listed=True,
        about="The dearest first.",
    )
    def get(self, request: Request, goal: str) -> Response:
        selectors.goal_name(self.principal, goal)
        currency = tenancy.currency_of(self.principal)
        rows, after = selectors.dearest_of_goal(
            self.principal, self.span(), goal, cursor=self.query.get("cursor"), limit=self.query["limit"]
        )
        return Response({"items": [shapes.mission_of(row, currency) for row in rows], "next": after})


class CostOfMission(CostResource):
    @operation(
        "costs_mission",
        "Read what one mission was charged for",
        permission=Permission.COST_VIEW,
        query=shapes.SpanListQuery,
        answer=shapes.MissionCostOut,
        about="Its lines come in pages: send `next` back as `cursor`.",
    )
    def get(self, request: Request, mission_id: uuid.UUID) -> Response:
        found = selectors.mission_cost(
            self.principal,
            mission_id,
            self.span(),
            cursor=self.query.get("cursor"),
            limit=self.query["limit"],
        )
        return Response(shapes.detail_of(found, tenancy.currency_of(self.principal)))
