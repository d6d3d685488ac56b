"""Questions to people: listed, read, answered."""

from __future__ import annotations

import uuid

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, operation, stale_is_412
from frontend.api.shapes import arranging
from frontend.api.shapes import escalations as shapes
from governance import selectors, services
from governance.escalations import reading
from governance.escalations.reading import InboxFilters

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
        query = self.query
        rows = selectors.escalation_rows(
            self.principal,
            state=query.get("state"),
            mission_id=query.get("mission"),
            waiting_for_me=query["mine"],
            filters=InboxFilters(
                kind=query.get("kind"),
                team_id=query.get("team"),
                group_id=query.get("group"),
                irreversible=query.get("irreversible"),
            ),
        )
        return self.page(rows, shapes.EscalationOut)


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


class EscalationVerb(EscalationItem):
    """One person does something to one question: 404 for what they may not see, 403 for what they may not decide."""

    http_method_names = ["post", "options"]

    def decidable(self, escalation_id: uuid.UUID) -> None:
        found = selectors.escalation(principal=self.principal, escalation_id=escalation_id)
        self.require(Permission.ESCALATION_DECIDE, found.team_id)

    @property
    def version(self) -> int:
        return int(self.expected) if self.expected.isascii() and self.expected.isdigit() else 0


class EscalationDecide(EscalationVerb):
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
        self.decidable(escalation_id)
        with stale_is_412(_LATER_VOTE):
            services.decide(
                approver=self.principal,
                escalation_id=escalation_id,
                version=self.version,
                approve=self.body["answer"] == "approve",
                reason=self.body["reason"],
            )
        return self.shown(escalation_id)


class EscalationsDecide(Resource):
    tag = "escalations"

    @operation(
        "escalations_decide_many",
        "Answer questions about the very same action",
        permission=Permission.ESCALATION_DECIDE,
        body=shapes.DecideManyBody,
        answer=shapes.DecidedManyOut,
        one_transaction=False,  # what is approved is judged again, and the judge may be asked
        about="Each is decided by itself and has its own result. When one is about something else, none is decided.",
    )
    def post(self, request: Request) -> Response:
        results = services.decide_many(
            approver=self.principal,
            items=[(item["id"], item["version"]) for item in self.body["items"]],
            approve=self.body["answer"] == "approve",
            reason=self.body["reason"],
        )
        items = [shapes.result_of(result) for result in results]
        return Response(shapes.DecidedManyOut({"items": items}).data)


class EscalationClaim(EscalationVerb):
    @operation(
        "escalations_claim",
        "Say that you are at work on a question",
        permission=Permission.ESCALATION_DECIDE,
        body=shapes.ClaimBody,
        answer=shapes.EscalationDetail,
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> HttpResponseBase:
        self.decidable(escalation_id)
        services.claim(actor=self.principal, escalation_id=escalation_id, take_over=self.body["take_over"])
        return self.shown(escalation_id)


class EscalationRelease(EscalationVerb):
    @operation(
        "escalations_release",
        "Say that you are not at work on a question any more",
        permission=Permission.ESCALATION_DECIDE,
        answer=shapes.EscalationDetail,
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> HttpResponseBase:
        self.decidable(escalation_id)
        services.release(actor=self.principal, escalation_id=escalation_id)
        return self.shown(escalation_id)


class EscalationComment(EscalationVerb):
    @operation(
        "escalations_comment",
        "Say something to other people about a question",
        permission=Permission.ESCALATION_VIEW,
        body=shapes.MessageBody,
        answer=shapes.MessageOut,
        status=201,
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> Response:
        said = services.comment(actor=self.principal, escalation_id=escalation_id, text=self.body["text"])
        return Response(shapes.MessageOut(said).data, status=201)


class EscalationAskAgent(EscalationVerb):
    @operation(
        "escalations_ask_agent",
        "Ask the agent about its action",
        permission=Permission.ESCALATION_VIEW,
        body=shapes.MessageBody,
        answer=shapes.MessageOut,
        status=201,
        about="It sees the question when it asks how its action stands. Its words decide nothing.",
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> Response:
        said = services.ask_agent(actor=self.principal, escalation_id=escalation_id, text=self.body["text"])
        return Response(shapes.MessageOut(said).data, status=201)


class EscalationEdit(EscalationVerb):
    @operation(
        "escalations_edit",
        "Edit the action that waits, and approve it as edited",
        permission=Permission.ESCALATION_DECIDE,
        body=shapes.EditBody,
        answer=shapes.EditedOut,
        if_match=True,
        one_transaction=False,  # what is edited is judged again, and the judge may be asked
        about="Judged again before anything is sent; earlier votes count for nothing.",
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> Response:
        self.decidable(escalation_id)
        with stale_is_412(_LATER_VOTE):
            edited = services.edit_and_approve(
                approver=self.principal,
                escalation_id=escalation_id,
                version=self.version,
                arguments=self.body["arguments"],
                reason=self.body["reason"],
            )
        question = edited.escalation.pk if edited.escalation else None
        return Response(shapes.EditedOut({"action": edited.action, "escalation_id": question}).data)


class EscalationPreviewEdit(EscalationVerb):
    @operation(
        "escalations_preview_edit",
        "See what the rules would say of an edited action",
        permission=Permission.ESCALATION_DECIDE,
        body=arranging.PreviewEditBody,
        answer=arranging.EditPreviewOut,
        about="Nothing is written, held or sent.",
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> Response:
        self.decidable(escalation_id)
        found = services.preview_edit(
            approver=self.principal, escalation_id=escalation_id, arguments=self.body["arguments"]
        )
        return Response(arranging.preview_of(found))


class EscalationBreakGlass(EscalationVerb):
    @operation(
        "escalations_break_glass",
        "Permit a waiting action without its quorum",
        permission=Permission.ESCALATION_BREAK_GLASS,
        body=shapes.BreakGlassBody,
        answer=shapes.EscalationDetail,
        if_match=True,
        one_transaction=False,  # every hard rule is asked again
        about="Hard rules stand. Somebody else reviews it afterwards.",
    )
    def post(self, request: Request, escalation_id: uuid.UUID) -> HttpResponseBase:
        with stale_is_412(_LATER_VOTE):
            services.break_glass(
                actor=self.principal, escalation_id=escalation_id, version=self.version, reason=self.body["reason"]
            )
        return self.shown(escalation_id)


class Delegations(Resource):
    tag = "delegations"

    @operation(
        "delegations_list",
        "List who stands in for whom",
        permission=Permission.ESCALATION_VIEW,
        answer=shapes.DelegationOut,
        listed=True,
        about="In force or to come, all on one page.",
    )
    def get(self, request: Request) -> Response:
        rows = reading.delegations(self.principal)
        return self.whole(rows, shapes.DelegationOut)

    @operation(
        "delegations_create",
        "Let somebody stand in",
        permission=Permission.ESCALATION_DECIDE,
        body=shapes.DelegationBody,
        answer=shapes.DelegationOut,
        status=201,
    )
    def post(self, request: Request) -> Response:
        made = services.delegate(actor=self.principal, **self.body)
        return Response(shapes.DelegationOut(made).data, status=201)


class DelegationEnd(Resource):
    tag = "delegations"

    @operation(
        "delegations_end",
        "End standing in now",
        permission=Permission.ESCALATION_VIEW,
        answer=shapes.DelegationOut,
    )
    def post(self, request: Request, delegation_id: uuid.UUID) -> Response:
        ended = services.end_delegation(actor=self.principal, delegation_id=delegation_id)
        return Response(shapes.DelegationOut(ended).data)
