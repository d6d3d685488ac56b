"""Who is asked: approver groups and routes. How it went: emergencies, approvers, and what one was told."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.common.clock import now
from controlplane.common.errors import not_found
from controlplane.idempotency.services import one_at_a_time
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, operation
from frontend.api.shapes import arranging as shapes
from governance import selectors, services
from governance.approval_models import ApproverGroup
from governance.choices import ReviewVerdict


class GroupResource(Resource):
    tag = "approver-groups"

    def group(self, group_id: uuid.UUID) -> ApproverGroup:
        found = next((row for row in selectors.approver_groups(self.principal) if row.pk == group_id), None)
        if found is None:
            raise not_found("group")
        return found

    def shown(self, group_id: uuid.UUID, *, status: int = 200) -> HttpResponseBase:
        found = self.group(group_id)
        location = f"/api/v1/approver-groups/{group_id}"
        data = shapes.GroupOut(found).data
        return self.item(data, version=services.version_of_group(found), status=status, location=location)


class Groups(GroupResource):
    @operation(
        "approver_groups_list",
        "List approver groups",
        permission=Permission.ESCALATION_VIEW,
        answer=shapes.GroupOut,
        listed=True,
        about="Those in use, by name, all on one page.",
    )
    def get(self, request: Request) -> Response:
        rows = selectors.approver_groups(self.principal)
        return self.whole(rows, shapes.GroupOut)

    @operation(
        "approver_groups_create",
        "Make an approver group",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.GroupBody,
        answer=shapes.GroupOut,
        status=201,
    )
    def post(self, request: Request) -> HttpResponseBase:
        made = services.save_group(actor=self.principal, **self.body)
        return self.shown(made.pk, status=201)


class GroupItem(GroupResource):
    @operation(
        "approver_groups_get", "Read an approver group", permission=Permission.ESCALATION_VIEW, answer=shapes.GroupOut
    )
    def get(self, request: Request, group_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(group_id)


class GroupChange(GroupResource):
    @operation(
        "approver_groups_change",
        "Change an approver group",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.GroupBody,
        answer=shapes.GroupOut,
        if_match=True,
    )
    def post(self, request: Request, group_id: uuid.UUID) -> HttpResponseBase:
        one_at_a_time(f"group:{group_id}")
        self.must_match(services.version_of_group(self.group(group_id)))
        services.save_group(actor=self.principal, group_id=group_id, expected=self.expected, **self.body)
        return self.shown(group_id)


class GroupRetire(GroupResource):
    @operation(
        "approver_groups_retire",
        "Ask an approver group no more",
        permission=Permission.ORGANISATION_WRITE,
        answer=None,
        about="Questions it was asked keep it. Refused while a route names it.",
    )
    def post(self, request: Request, group_id: uuid.UUID) -> None:
        services.retire_group(actor=self.principal, group_id=group_id)


class RouteResource(Resource):
    tag = "approval-routes"

    def shown(self, route_id: uuid.UUID, *, status: int = 200) -> HttpResponseBase:
        row, sentence = selectors.approval_route(self.principal, route_id)
        location = f"/api/v1/approval-routes/{route_id}"
        data = shapes.route_out(row, sentence)
        return self.item(data, version=services.version_of_route(row), status=status, location=location)


class Routes(RouteResource):
    @operation(
        "approval_routes_list",
        "List approval routes",
        permission=Permission.ESCALATION_VIEW,
        answer=shapes.RouteOut,
        listed=True,
        about="In the order they are tried, all on one page.",
    )
    def get(self, request: Request) -> Response:
        items = [shapes.route_out(row, sentence) for row, sentence in selectors.routes_in_words(self.principal)]
        return self.whole(items)

    @operation(
        "approval_routes_create",
        "Add an approval route",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.RouteBody,
        answer=shapes.RouteOut,
        status=201,
        about="As the last one that is tried.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        made = services.save_route(actor=self.principal, route=services.Route(**self.body))
        return self.shown(made.pk, status=201)


class RoutesTry(RouteResource):
    @operation(
        "approval_routes_try",
        "Find out which route a question would take",
        permission=Permission.ESCALATION_VIEW,
        query=shapes.TryQuery,
        answer=shapes.TriedOut,
        absent=True,
        about="Nobody is asked anything.",
    )
    def get(self, request: Request) -> Response:
        steps, way = selectors.try_routes(
            self.principal,
            kind=self.query["kind"],
            team_id=self.query["team"],
            amount=self.query.get("amount"),
            irreversible=self.query["irreversible"],
        )
        return Response(shapes.tried(steps, way))


class RouteItem(RouteResource):
    @operation(
        "approval_routes_get", "Read an approval route", permission=Permission.ESCALATION_VIEW, answer=shapes.RouteOut
    )
    def get(self, request: Request, route_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(route_id)


class RouteChange(RouteResource):
    @operation(
        "approval_routes_change",
        "Change an approval route",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.RouteBody,
        answer=shapes.RouteOut,
        if_match=True,
    )
    def post(self, request: Request, route_id: uuid.UUID) -> HttpResponseBase:
        one_at_a_time(f"route:{route_id}")
        self.must_match(services.version_of_route(selectors.approval_route(self.principal, route_id)[0]))
        route = services.Route(**self.body)
        services.save_route(actor=self.principal, route=route, route_id=route_id, expected=self.expected)
        return self.shown(route_id)


class RouteMove(RouteResource):
    @operation(
        "approval_routes_move",
        "Try an approval route earlier or later",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.MoveBody,
        answer=shapes.RouteOut,
    )
    def post(self, request: Request, route_id: uuid.UUID) -> HttpResponseBase:
        services.move_route(actor=self.principal, route_id=route_id, up=self.body["up"])
        return self.shown(route_id)


class RouteRemove(RouteResource):
    @operation(
        "approval_routes_remove",
        "Remove an approval route",
        permission=Permission.ORGANISATION_WRITE,
        answer=None,
        about="Questions that took it keep their way.",
    )
    def post(self, request: Request, route_id: uuid.UUID) -> None:
        services.remove_route(actor=self.principal, route_id=route_id)


class BrokenGlass(Resource):
    tag = "broken-glass"

    @operation(
        "broken_glass_list",
        "List what was permitted in emergencies",
        permission=Permission.ESCALATION_VIEW,
        answer=shapes.BreakGlassOut,
        listed=True,
        about="What nobody has reviewed comes first; the newest fifty.",
    )
    def get(self, request: Request) -> Response:
        rows = selectors.broken_glass(self.principal)
        return self.whole(rows, shapes.BreakGlassOut)


class BreakGlassReview(Resource):
    tag = "broken-glass"

    @operation(
        "broken_glass_review",
        "Say whether an emergency was one",
        permission=Permission.ESCALATION_DECIDE,
        body=shapes.ReviewBody,
        answer=shapes.BreakGlassOut,
        about="Once, by somebody else than who broke the glass.",
    )
    def post(self, request: Request, break_glass_id: uuid.UUID) -> Response:
        reviewed = services.review_break_glass(
            reviewer=self.principal,
            break_glass_id=break_glass_id,
            verdict=ReviewVerdict(self.body["verdict"]),
            note=self.body["note"],
        )
        return Response(shapes.BreakGlassOut(reviewed).data)


class ApproverHealth(Resource):
    tag = "escalations"

    @operation(
        "approver_health_get",
        "Read how approving goes",
        permission=Permission.ESCALATION_VIEW,
        query=shapes.HealthQuery,
        answer=shapes.HealthOut,
    )
    def get(self, request: Request) -> Response:
        since = now() - timedelta(days=self.query["days"])
        return Response(shapes.HealthOut(selectors.approver_health(self.principal, since=since)).data)


class Notices(Resource):
    tag = "notices"

    @operation(
        "notices_list",
        "List what you were told",
        permission=None,
        answer=shapes.NoticeOut,
        listed=True,
        about="Your own, the newest hundred: questions put to you, and what became of your missions and requests.",
    )
    def get(self, request: Request) -> Response:
        rows = selectors.notices_of(self.principal, limit=100)
        return self.whole(rows, shapes.NoticeOut)


class NoticesRead(Resource):
    tag = "notices"

    @operation(
        "notices_read",
        "Mark as read what you were told",
        permission=None,
        body=shapes.ReadBody,
        answer=shapes.ReadOut,
    )
    def post(self, request: Request) -> Response:
        if self.principal.user_id is None:
            raise not_found("notice")
        read = services.mark_read(principal=self.principal, notice_ids=self.body.get("ids"))
        return Response(shapes.ReadOut({"read": read}).data)
