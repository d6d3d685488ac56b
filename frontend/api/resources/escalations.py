"""Questions to people: listed, read, answered."""

from __future__ import annotations

import uuid

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, changed_meanwhile, operation
from frontend.api.shapes import escalations as shapes
from governance import selectors, services

_LATER_VOTE = "escalation.changed"


class Escalations(Resource):
    tag = "escalations"

    @operation(
        "escalations_list",
        "List questions to people",
        permission=Permission.ESCALATION_VIEW,
        query=shapes.EscalationQuery,
        answer=shapes.EscalationOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = selectors.escalation_rows(
            self.principal,
            state=self.query.get("state"),
            mission_id=self.query.get("mission"),
            waiting_for_me=self.query["mine"],
        )
        return self.page(rows, lambda found: list(shapes.EscalationOut(found, many=True).data))


class EscalationItem(Resource):
    tag = "escalations"

    @operation(
        "escalations_get",
        "Read a question",
        permission=Permission.ESCALATION_VIEW,
        answer=shapes.EscalationDetail,
    )
    def get(self, request: Request, escalation_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(escalation_id)

    def shown(self, escalation_id: uuid.UUID) -> HttpResponseBase:
        found = selectors.escalation(principal=self.principal, escalation_id=escalation_id)
        return self.item(shapes.EscalationDetail(found).data, version=found.version)


class EscalationDecide(EscalationItem):
    http_method_names = ["post", "options"]

    @operation(
        "escalations_decide",
        "Answer a question",
        permission=Permission.ESCALATION_DECIDE,
        body=shapes.DecideBody,
        answer=shapes.EscalationDetail,
        if_match=True,
        one_transaction=False,  # what is approved is judged again, and the judge may be asked
        about="One vote of a person, on the question as the ETag names it. Nobody answers their own.",
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> HttpResponseBase:
        found = selectors.escalation(principal=self.principal, escalation_id=escalation_id)
        self.require(Permission.ESCALATION_DECIDE, found.team_id)
        version = int(self.expected) if self.expected.isascii() and self.expected.isdigit() else 0
        try:
            services.decide(
                approver=self.principal,
                escalation_id=escalation_id,
                version=version,
                approve=self.body["answer"] == "approve",
                reason=self.body["reason"],
            )
        except RemitError as error:
            if error.code == _LATER_VOTE:
                raise changed_meanwhile() from error
            raise
        return self.shown(escalation_id)
