"""Settings of the organisation and the rules in force, erasing a person, and what is one's own."""

from __future__ import annotations

import uuid

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agents import saved_views, services
from controlplane.audit import erasure
from controlplane.common.errors import FieldError, invalid, not_found
from controlplane.tenancy import organisations, sessions
from controlplane.tenancy.models import User
from controlplane.tenancy.selectors import person_of, roles_of
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, digest_of, operation, stale_is_412
from frontend.api.shapes import settings as shapes
from frontend.finding import find
from frontend.policy_words import policies_in
from governance import selectors as governance
from governance.bundles import BundleSource, run_golden_cases


class OrganisationResource(Resource):
    tag = "organisation"

    def shown(self) -> HttpResponseBase:
        found = organisations.settings_of(self.principal)
        return self.item(shapes.OrganisationOut(found).data, version=digest_of(organisations.version_of(found)))


class OrganisationItem(OrganisationResource):
    @operation(
        "organisation_get",
        "Read the organisation's settings",
        permission=Permission.ORGANISATION_WRITE,
        answer=shapes.OrganisationOut,
    )
    def get(self, request: Request) -> HttpResponseBase:
        return self.shown()


class OrganisationChange(OrganisationResource):
    @operation(
        "organisation_change",
        "Change the organisation's settings",
        permission=Permission.ORGANISATION_WRITE,
        body=shapes.OrganisationBody,
        answer=shapes.OrganisationOut,
        if_match=True,
    )
    def post(self, request: Request) -> HttpResponseBase:
        seen = organisations.version_of(organisations.settings_of(self.principal))
        self.must_match(digest_of(seen))
        with stale_is_412("organisation.changed"):
            organisations.change_settings(principal=self.principal, seen=seen, **self.body)
        return self.shown()


class PolicyBundles(Resource):
    tag = "policy-bundles"

    @operation(
        "policy_bundles_list",
        "List the organisation's own policy bundles",
        permission=Permission.POLICY_VIEW,
        answer=shapes.BundleOut,
        listed=True,
        about="The newest first, all on one page. Loading and promoting is an operator's command.",
    )
    def get(self, request: Request) -> Response:
        rows = governance.bundles(principal=self.principal)
        return self.whole(rows, shapes.BundleOut)


class PolicyBundleActive(Resource):
    tag = "policy-bundles"

    @operation(
        "policy_bundles_active",
        "Read the policies in force",
        permission=Permission.POLICY_VIEW,
        answer=shapes.ActiveBundleOut,
        absent=True,
        about="Each policy in the words it carries, and the cases they are proven by. 404: everything is refused.",
    )
    def get(self, request: Request) -> HttpResponseBase:
        bundle = governance.bundle_in_force(self.principal)
        if bundle is None:
            raise not_found("policy bundle")
        source = BundleSource(policies=bundle.policies, schema=bundle.schema, golden_cases=bundle.golden_cases)
        context = {"policies": policies_in(bundle.policies), "cases": run_golden_cases(source)}
        return self.item(shapes.ActiveBundleOut(bundle, context=context).data, version=digest_of(bundle.sha256))


class MemberErasure(Resource):
    tag = "members"

    @operation(
        "members_erasure",
        "Read what erasing a person would touch",
        permission=Permission.MEMBER_WRITE,
        answer=shapes.ErasurePlanOut,
    )
    def get(self, request: Request, user_id: uuid.UUID) -> Response:
        return Response(shapes.ErasurePlanOut(erasure.plan(actor=self.principal, user_id=user_id)).data)


class MemberErase(Resource):
    tag = "members"

    @operation(
        "members_erase",
        "Erase what names a person",
        permission=Permission.MEMBER_WRITE,
        body=shapes.EraseBody,
        answer=shapes.ErasedOut,
        about="Done when it answers. What happened stays; who it was becomes a pseudonym.",
    )
    def post(self, request: Request, user_id: uuid.UUID) -> Response:
        erasure.plan(actor=self.principal, user_id=user_id)
        if not self.body["sure"]:
            raise invalid("person.not_confirmed", "Nothing was erased.", FieldError("/sure", "true, to say so"))
        return Response(shapes.ErasedOut(erasure.erase_person(actor=self.principal, user_id=user_id)).data)


class OwnResource(Resource):
    """Of a person; agents and services have nothing like it."""

    def user(self) -> User:
        found = person_of(self.principal)
        if found is None:
            raise not_found("person")
        return found

    def session_key(self) -> str | None:
        """Of the browser that asks, when one does rather than a token."""
        if self.principal.token_id is not None:
            return None
        key: str | None = self.request._request.session.session_key
        return key


class Profile(OwnResource):
    tag = "me"

    @operation(
        "me_get", "Read your own profile, and what you may", permission=None, answer=shapes.ProfileOut, absent=True
    )
    def get(self, request: Request) -> HttpResponseBase:
        return self.shown(self.user())

    def shown(self, user: User) -> HttpResponseBase:
        context = {"principal": self.principal, "roles": roles_of(self.principal)}
        data = shapes.ProfileOut(user, context=context).data
        return self.item(data, version=digest_of(user.name, user.time_zone, user.preferences))


class ProfileChange(Profile):
    http_method_names = ["post", "options"]

    @operation(
        "me_change",
        "Change your own profile",
        permission=None,
        own_account=True,
        body=shapes.ProfileBody,
        answer=shapes.ProfileOut,
    )
    def post(self, request: Request) -> HttpResponseBase:
        return self.shown(services.update_profile(actor=self.principal, **self.body))


class Sessions(OwnResource):
    tag = "sessions"

    @operation(
        "sessions_list",
        "List browsers where you are signed in",
        permission=None,
        own_account=True,
        answer=shapes.SessionOut,
        listed=True,
        absent=True,
        about="All on one page.",
    )
    def get(self, request: Request) -> Response:
        rows = sessions.sessions_of(self.user(), current_key=self.session_key())
        return self.whole(rows, shapes.SessionOut)


class SessionEnd(OwnResource):
    tag = "sessions"

    @operation(
        "sessions_end",
        "Sign one of your browsers out",
        permission=None,
        own_account=True,
        answer=None,
    )
    def post(self, request: Request, session_id: int) -> None:
        sessions.end_session(principal=self.principal, session_id=session_id)


class SessionsEndOthers(OwnResource):
    tag = "sessions"

    @operation(
        "sessions_end_others",
        "Sign out everywhere but here",
        permission=None,
        own_account=True,
        answer=shapes.EndedSessionsOut,
        about="With a token there is no “here”: every browser is signed out.",
    )
    def post(self, request: Request) -> Response:
        ended = sessions.end_other_sessions(principal=self.principal, current_key=self.session_key())
        return Response(shapes.EndedSessionsOut({"ended": ended}).data)


class SavedViews(Resource):
    tag = "saved-views"

    @operation(
        "saved_views_list",
        "List saved views",
        permission=None,
        query=shapes.SavedViewQuery,
        answer=shapes.SavedViewOut,
        listed=True,
        about="Your own, then those of your teams, by name, all on one page.",
    )
    def get(self, request: Request) -> Response:
        rows = saved_views.views_of(self.principal, self.query.get("list"))
        return self.whole(rows, shapes.SavedViewOut)

    @operation(
        "saved_views_create",
        "Save the filters of a list",
        permission=None,
        own_account=True,
        body=shapes.SavedViewBody,
        answer=shapes.SavedViewOut,
        status=201,
    )
    def post(self, request: Request) -> Response:
        body = dict(self.body)
        made = saved_views.save_view(actor=self.principal, list_name=body.pop("list"), **body)
        shared = made.team.name if made.team else ""
        view = saved_views.View(
            made.pk, made.list, made.name, made.query, mine=True, shared_with=shared, removable=True
        )
        return Response(shapes.SavedViewOut(view).data, status=201)


class SavedViewRemove(Resource):
    tag = "saved-views"

    @operation(
        "saved_views_remove",
        "Remove a saved view",
        permission=None,
        own_account=True,
        answer=None,
        about="One of yours, or one that is shared with a team in which you give roles.",
    )
    def post(self, request: Request, view_id: uuid.UUID) -> None:
        saved_views.remove_view(actor=self.principal, view_id=view_id)


class Search(Resource):
    tag = "search"

    @operation(
        "search",
        "Find missions, questions, agents, actions, servers and people",
        permission=None,
        query=shapes.SearchQuery,
        answer=shapes.HitsOut,
        about="A few of each kind, only what you may see; what is named so first.",
    )
    def get(self, request: Request) -> Response:
        return Response(shapes.HitsOut({"items": find(self.principal, self.query["q"])}).data)
