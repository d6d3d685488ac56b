"""The organisation, its rules, and what is one's own: profile, sessions, saved views, what is found."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agents import saved_views
from controlplane.tenancy import organisations
from frontend.api.fields import Body, Choice, Flag, Id, Json, Moment, Name, Query, Text, Whole
from frontend.api.shapes.arranging import AmountText
from frontend.api.shapes.common import Reference
from frontend.api.shapes.people import HeldRole, roles_out
from frontend.finding import LONGEST, SHORTEST
from governance.choices import BundleState


class OrganisationOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    name = serializers.CharField()
    slug = serializers.CharField()
    currency = serializers.CharField()
    time_zone = serializers.CharField()
    sign_off_above = AmountText(help_text="In the organisation's currency.")
    token_days_max = serializers.IntegerField()
    second_factor_required = serializers.BooleanField()


class OrganisationBody(Body):
    """All settings as they should be."""

    name = Name()
    time_zone = Text(max_length=60, help_text="Such as Europe/Berlin.")
    sign_off_above = AmountText(help_text="Missions with a larger budget need a second person before they start.")
    token_days_max = Whole(min_value=1, max_value=organisations.LONGEST_TOKEN_DAYS)
    second_factor_required = Flag()


class BundleOut(serializers.Serializer):  # type: ignore[type-arg]
    """A version of the rules, named by the hash of policies, schema and golden cases."""

    id = Id()
    name = serializers.CharField()
    sha256 = serializers.CharField()
    state = serializers.ChoiceField(BundleState.values)
    is_baseline = serializers.SerializerMethodField(help_text="Shipped with Remit rather than the organisation's own.")
    loaded_by_id = Id(allow_null=True, help_text="Somebody else promotes it.")
    created_at = Moment()
    activated_at = Moment(allow_null=True)

    def get_is_baseline(self, bundle: Any) -> bool:
        return bundle.organisation_id is None


class PolicyOut(serializers.Serializer):  # type: ignore[type-arg]
    id = serializers.CharField(source="identifier")
    does = serializers.CharField()
    message = serializers.CharField(allow_blank=True)
    remedy = serializers.CharField(allow_blank=True)
    code = serializers.CharField(allow_blank=True)


class CaseOut(serializers.Serializer):  # type: ignore[type-arg]
    """One golden case, judged by these rules just now."""

    name = serializers.CharField()
    expected = serializers.CharField()
    verdict = serializers.CharField()
    passed = serializers.BooleanField()


class ActiveBundleOut(BundleOut):
    text = serializers.CharField(source="policies", help_text="The policies in Cedar.")
    schema = Json()
    policies = serializers.SerializerMethodField()
    cases = serializers.SerializerMethodField()

    @extend_schema_field(PolicyOut(many=True))
    def get_policies(self, bundle: Any) -> list[dict[str, Any]]:  # noqa: ARG002 - read once, for all
        return list(PolicyOut(self.context["policies"], many=True).data)

    @extend_schema_field(CaseOut(many=True))
    def get_cases(self, bundle: Any) -> list[dict[str, Any]]:  # noqa: ARG002 - judged once, for all
        return list(CaseOut(self.context["cases"], many=True).data)


class ErasurePlanOut(serializers.Serializer):  # type: ignore[type-arg]
    """What erasing this person would touch."""

    user_id = Id(source="user.pk")
    name = serializers.CharField(source="user.name")
    pseudonym = serializers.CharField()
    entries = serializers.IntegerField(help_text="Audit entries that would be restated; the chain stays whole.")
    roles = serializers.IntegerField()
    tokens = serializers.IntegerField()


class ErasedOut(serializers.Serializer):  # type: ignore[type-arg]
    """What an erasure did, at once and for good. `kept`: places that nothing may change, with their numbers of rows."""

    pseudonym = serializers.CharField()
    entries = serializers.IntegerField()
    rows = serializers.IntegerField()
    kept = serializers.DictField(child=serializers.IntegerField())


class EraseBody(Body):
    sure = Flag(help_text="`true`: it can't be undone.")


class SessionOut(serializers.Serializer):  # type: ignore[type-arg]
    """One browser of yours that is signed in. `is_this`: the one that asks."""

    id = serializers.IntegerField()
    device = serializers.CharField()
    user_agent = serializers.CharField(allow_blank=True)
    address = serializers.CharField()
    since = Moment()
    last_used = Moment()
    is_this = serializers.BooleanField()


class EndedSessionsOut(serializers.Serializer):  # type: ignore[type-arg]
    ended = serializers.IntegerField()


class ProfileOut(serializers.Serializer):  # type: ignore[type-arg]
    """Who asks, in which organisation, and what they may. `scopes`: the only permissions the token lends of those the
    roles have; null: all of them."""

    id = Id()
    name = serializers.CharField()
    email = serializers.CharField()
    time_zone = serializers.CharField()
    single_key_shortcuts = serializers.SerializerMethodField()
    organisation = serializers.SerializerMethodField()
    roles = serializers.SerializerMethodField()
    scopes = serializers.SerializerMethodField()

    @extend_schema_field(Reference)
    def get_organisation(self, user: Any) -> dict[str, Any]:  # noqa: ARG002 - whoever asks
        principal = self.context["principal"]
        return {"id": str(principal.organisation_id), "name": principal.organisation_name}

    @extend_schema_field(HeldRole(many=True))
    def get_roles(self, user: Any) -> list[dict[str, Any]]:  # noqa: ARG002 - whoever asks
        return roles_out(self.context["roles"])

    @extend_schema_field({"type": ["array", "null"], "items": {"type": "string"}})
    def get_scopes(self, user: Any) -> list[str] | None:  # noqa: ARG002 - whoever asks
        scopes = self.context["principal"].scopes
        return None if scopes is None else sorted(scope.value for scope in scopes)

    def get_single_key_shortcuts(self, user: Any) -> bool:
        return bool(user.preferences.get("single_key_shortcuts", True))


class ProfileBody(Body):
    name = Name()
    time_zone = Text(max_length=60, help_text="Such as Europe/Berlin.")
    single_key_shortcuts = Flag()


class SavedViewOut(serializers.Serializer):  # type: ignore[type-arg]
    """The filters of a list under a name. `shared_with`: the team that sees it too. `removable`: by you; what is
    shared is so also by who gives roles in that team."""

    id = Id()
    list = serializers.ChoiceField(saved_views.LISTS)
    name = serializers.CharField()
    query = serializers.CharField()
    mine = serializers.BooleanField()
    shared_with = serializers.CharField(allow_blank=True)
    removable = serializers.BooleanField()


class SavedViewQuery(Query):
    list = serializers.ChoiceField(saved_views.LISTS, required=False, help_text="Without it those of every list.")


class SavedViewBody(Body):
    list = Choice(saved_views.LISTS)
    name = Name(max_length=saved_views.LONGEST_NAME)
    query = Text(max_length=saved_views.LONGEST_QUERY, help_text="What follows the question mark of the list's page.")
    team_id = Id(required=False, allow_null=True, default=None)


class SearchQuery(Query):
    q = serializers.CharField(
        min_length=SHORTEST, max_length=LONGEST, help_text="Part of a name or title, or a whole id."
    )


class HitOut(serializers.Serializer):  # type: ignore[type-arg]
    """One thing that was found. `resource` and `id`: where it is read here; `url`: its page."""

    resource = serializers.CharField(source="thing")
    id = Id()
    label = serializers.CharField()  # type: ignore[assignment]
    kind = serializers.CharField()
    url = serializers.CharField()


class HitsOut(serializers.Serializer):  # type: ignore[type-arg]
    items = HitOut(many=True)
