"""Members, invitations, teams and tokens: who belongs here, and what stands for them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agents import services as agents
from controlplane.common.errors import forbidden
from controlplane.tenancy import credentials, directory, invitations, members, second_factor, selectors
from controlplane.tenancy.models import Invitation, Token, TokenKind
from controlplane.tenancy.types import Permission, Principal
from frontend.api.fields import ListQuery
from frontend.api.operations import Resource, operation, stale_is_412
from frontend.api.shapes import people as shapes
from frontend.mail import mail_invitation


class MemberResource(Resource):
    tag = "members"

    def shown(self, user_id: uuid.UUID) -> HttpResponseBase:
        person = directory.member(self.principal, user_id)
        version = members.fingerprint(directory.held_by(self.principal, user_id))
        return self.item(self.shape([person])[0], version=version)

    def shape(self, people: list[directory.Person]) -> list[Any]:
        context = {"manages": self.principal.has_anywhere(Permission.MEMBER_WRITE)}
        return list(shapes.MemberOut(people, many=True, context=context).data)


class Members(MemberResource):
    @operation(
        "members_list",
        "List members",
        permission=Permission.MEMBER_VIEW,
        query=shapes.MemberQuery,
        answer=shapes.MemberOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = directory.people(self.principal, text=self.query["q"], state=self.query.get("state", ""))
        return self.page(rows, lambda users: self.shape(directory.lines(self.principal, users)))


class MemberItem(MemberResource):
    @operation("members_get", "Read a member", permission=Permission.MEMBER_VIEW, answer=shapes.MemberOut)
    def get(self, request: Request, user_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(user_id)


class MemberSetRoles(MemberResource):
    @operation(
        "members_set_roles",
        "Set a member's roles",
        permission=Permission.MEMBER_WRITE,
        body=shapes.RolesBody,
        answer={200: shapes.MemberOut, 204: None},
        if_match=True,
        about="In the places you may change; roles elsewhere stay. Nobody raises their own rights. 204: no role is"
        " left, so there is no member to show.",
    )
    def post(self, request: Request, user_id: uuid.UUID) -> HttpResponseBase | None:
        directory.person(self.principal, user_id)
        places = {team.pk if team else None for team in directory.places(self.principal)}
        kept = {held for held in directory.held_by(self.principal, user_id) if held[0] not in places}
        wanted = shapes.roles_in(self.body["roles"]) | kept
        with stale_is_412("member.changed"):
            members.set_roles(principal=self.principal, user_id=user_id, wanted=wanted, seen=self.expected)
        return self.shown(user_id) if wanted else None


class MemberDeactivate(MemberResource):
    @operation(
        "members_deactivate",
        "Shut a member out",
        permission=Permission.MEMBER_WRITE,
        answer=shapes.EndedOut,
        about="Roles rest; sessions, personal tokens and open invitations of theirs end.",
    )
    def post(self, request: Request, user_id: uuid.UUID) -> Response:
        return Response(shapes.EndedOut(members.deactivate(principal=self.principal, user_id=user_id)).data)


class MemberReactivate(MemberResource):
    @operation(
        "members_reactivate", "Let a member back in", permission=Permission.MEMBER_WRITE, answer=shapes.MemberOut
    )
    def post(self, request: Request, user_id: uuid.UUID) -> HttpResponseBase:
        members.reactivate(principal=self.principal, user_id=user_id)
        return self.shown(user_id)


class MemberResetSecondFactor(MemberResource):
    @operation(
        "members_reset_second_factor",
        "Take away a member's second factor",
        permission=Permission.MEMBER_WRITE,
        answer=shapes.MemberOut,
    )
    def post(self, request: Request, user_id: uuid.UUID) -> HttpResponseBase:
        second_factor.reset(principal=self.principal, user_id=user_id)
        return self.shown(user_id)


class Invitations(Resource):
    tag = "invitations"

    @operation(
        "invitations_list",
        "List open invitations",
        permission=Permission.MEMBER_WRITE,
        answer=shapes.InvitationOut,
        listed=True,
        about="All on one page.",
    )
    def get(self, request: Request) -> Response:
        items = [
            {
                "id": row.pk,
                "email": row.email,
                "roles": shapes.roles_out(roles),
                "invited_by": row.invited_by,
                "created_at": row.created_at,
                "expires_at": row.expires_at,
            }
            for row, roles in invitations.visible(self.principal)
        ]
        return self.whole(items, shapes.InvitationOut)

    @operation(
        "invitations_create",
        "Invite somebody",
        permission=Permission.MEMBER_WRITE,
        body=shapes.InvitationBody,
        answer=shapes.NewInvitationOut,
        status=201,
        one_transaction=False,  # a mail leaves after the invitation is there
        about="An open one of the same address is replaced. Mailed where mail is set up; else send the link yourself.",
    )
    def post(self, request: Request) -> Response:
        made, secret = invitations.invite(
            principal=self.principal, email=self.body["email"], roles=list(shapes.roles_in(self.body["roles"]))
        )
        return Response(_with_link(self.principal, made, secret), status=201)


class InvitationRenew(Resource):
    tag = "invitations"

    @operation(
        "invitations_renew",
        "Make a new link for an invitation",
        permission=Permission.MEMBER_WRITE,
        answer=shapes.NewInvitationOut,
        one_transaction=False,  # a mail leaves after the link is there
        about="The old one is dead. Mailed where mail is set up.",
    )
    def post(self, request: Request, invitation_id: uuid.UUID) -> Response:
        made, secret = invitations.renew(principal=self.principal, invitation_id=invitation_id)
        return Response(_with_link(self.principal, made, secret))


class InvitationRevoke(Resource):
    tag = "invitations"

    @operation(
        "invitations_revoke",
        "Take an invitation back",
        permission=Permission.MEMBER_WRITE,
        answer=None,
    )
    def post(self, request: Request, invitation_id: uuid.UUID) -> None:
        invitations.revoke(principal=self.principal, invitation_id=invitation_id)


def _with_link(principal: Principal, made: Invitation, secret: str) -> Any:
    """The link, mailed as the page mails it."""
    link = f"{settings.CONFIG.public_url}/invitations/{secret}"
    mailed = mail_invitation(invitation=made, link=link, organisation=principal.organisation_name)
    facts = {"id": made.pk, "email": made.email, "expires_at": made.expires_at, "link": link, "mailed": mailed}
    return shapes.NewInvitationOut(facts).data


class Teams(Resource):
    tag = "teams"

    @operation(
        "teams_list",
        "List teams",
        permission=Permission.MEMBER_VIEW,
        query=ListQuery,
        answer=shapes.TeamOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        return self.page(selectors.teams(self.principal), shapes.TeamOut)

    @operation(
        "teams_create",
        "Add a team",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.TeamBody,
        answer=shapes.TeamOut,
        status=201,
    )
    def post(self, request: Request) -> HttpResponseBase:
        team = agents.add_team(actor=self.principal, name=self.body["name"])
        data = shapes.TeamOut(team).data
        return self.item(data, version=team.slug, status=201, location=f"/api/v1/teams/{team.pk}")


class TeamItem(Resource):
    tag = "teams"

    @operation("teams_get", "Read a team", permission=Permission.MEMBER_VIEW, answer=shapes.TeamOut)
    def get(self, request: Request, team_id: uuid.UUID) -> HttpResponseBase:
        team = selectors.team(self.principal, team_id)
        return self.item(shapes.TeamOut(team).data, version=team.slug)


class Tokens(Resource):
    tag = "tokens"

    @operation(
        "tokens_list",
        "List tokens",
        permission=None,
        query=shapes.TokenQuery,
        answer=shapes.TokenOut,
        listed=True,
        about="Your own; those of the whole organisation for who manages both tokens and members.",
    )
    def get(self, request: Request) -> Response:
        agent_id = self.query.get("agent")
        rows = (
            selectors.credentials_of_agent(self.principal, agent_id) if agent_id else credentials.listed(self.principal)
        )
        return self.page(rows, shapes.TokenOut)

    @operation(
        "tokens_create",
        "Issue a token",
        permission=None,
        body=shapes.TokenBody,
        answer=shapes.NewTokenOut,
        status=201,
        about="Never one that may more than what you ask with. `svc` and `agt` need `token.write`.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        body = self.body
        token, text = self._issue(body["kind"], {"name": body["name"], "expires_at": body["expires_at"]})
        return _new(self, token, text)

    def _issue(self, kind: str, common: dict[str, Any]) -> tuple[Token, str]:
        scopes = {Permission(item) for item in self.body["scopes"]} if "scopes" in self.body else None
        if kind == TokenKind.AGENT:
            return agents.issue_credential(actor=self.principal, agent_id=self.body["agent_id"], **common)
        if kind == TokenKind.SERVICE:
            return credentials.issue_service_token(principal=self.principal, scopes=scopes, **common)
        user = selectors.person_of(self.principal)
        if user is None:
            raise forbidden(Permission.TOKEN_WRITE.value)
        return credentials.issue_personal_token(principal=self.principal, user=user, scopes=scopes, **common)


class TokenRotate(Resource):
    tag = "tokens"

    @operation(
        "tokens_rotate",
        "Replace a token",
        permission=None,
        body=shapes.RotateBody,
        answer=shapes.NewTokenOut,
        status=201,
        about="The new one may the same; the old one dies after the overlap.",
    )
    def post(self, request: Request, token_id: uuid.UUID) -> HttpResponseBase:
        token, text = credentials.rotate_token(
            principal=self.principal, token_id=token_id, overlap=timedelta(seconds=self.body["overlap_seconds"])
        )
        return _new(self, token, text)


class TokenRevoke(Resource):
    tag = "tokens"

    @operation(
        "tokens_revoke",
        "Revoke a token",
        permission=None,
        answer=None,
        about="Dead before its next request. Your own, or one of teams you may issue for.",
    )
    def post(self, request: Request, token_id: uuid.UUID) -> None:
        credentials.revoke_token(principal=self.principal, token_id=token_id)


def _new(view: Resource, token: Token, text: str) -> HttpResponseBase:
    return view.item({**shapes.TokenOut(token).data, "token": text}, version="new", status=201)
