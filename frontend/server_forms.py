"""The forms about one server: which teams may use it, its credential, a call to try."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from agents.choices import CredentialKind
from agents.models import McpServer, McpTool
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import RemitError
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal
from frontend.pages import NO_TEAM
from frontend.templatetags.remit import spelt_text

EVERYONE, CHOSEN = "everyone", "chosen"
_CODE = {"autocomplete": "off", "spellcheck": "false", "class": "code"}


class TeamFields(forms.Form):
    """Which teams a server is for. Whoever writes servers in some teams only is offered those."""

    visibility = forms.ChoiceField(
        label="Who may use it",
        required=False,
        widget=forms.RadioSelect,
        choices=[(EVERYONE, "Every team"), (CHOSEN, "Only some teams")],
        initial=EVERYONE,
    )
    teams = forms.MultipleChoiceField(
        label="Teams",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Missions of other teams can't use its tools, whatever they grant, and their members don't see it.",
    )


def offer_teams(form: TeamFields, principal: Principal, server: McpServer | None = None) -> None:
    """The choices, and what is chosen now."""
    teams = tenancy.teams_with(principal, Permission.SERVER_WRITE)
    form.fields["teams"].choices = [(str(team.pk), team.name) for team in teams]  # type: ignore[attr-defined]
    if not teams:
        form.fields["teams"].help_text = NO_TEAM
    whole = principal.teams_with(Permission.SERVER_WRITE) is ALL_TEAMS
    if server is not None and server.team_ids is not None:
        form.initial = {"visibility": CHOSEN, "teams": [str(pk) for pk in server.team_ids]}
    elif server is None and not whole:
        form.initial = {"visibility": CHOSEN, "teams": [str(team.pk) for team in teams]}
    if not whole and (server is None or server.team_ids is not None):
        del form.fields["visibility"]


def teams_chosen(data: Mapping[str, Any]) -> list[uuid.UUID] | None:
    """None: every team, or (where a new server names none) every team the person writes servers in."""
    if data.get("visibility") == EVERYONE:
        return None
    chosen = [uuid.UUID(pk) for pk in data.get("teams") or ()]
    return chosen or (None if not data.get("visibility") else [])


class CredentialForm(forms.Form):
    """What is typed here goes to the service and is never put back into a page. Which fields count depends on the
    kind."""

    use_required_attribute = False

    kind = forms.ChoiceField(
        label="What the server wants",
        choices=CredentialKind.choices,
        widget=forms.RadioSelect,
        initial=CredentialKind.BEARER,
    )
    secret = forms.CharField(
        label="Secret",
        max_length=4096,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="The token, the header's value, or the client's secret. Sealed at once; nobody can read it again.",
    )
    header = forms.CharField(
        label="Header",
        max_length=60,
        widget=forms.TextInput(attrs={**_CODE, "placeholder": "X-Api-Key"}),
        help_text="Its name.",
    )
    token_url = forms.CharField(
        label="Token address",
        max_length=400,
        widget=forms.TextInput(attrs={**_CODE, "inputmode": "url"}),
        help_text="Where Remit gets its access tokens: https://.",
    )
    client_id = forms.CharField(label="Client id", max_length=200, widget=forms.TextInput(attrs=_CODE))
    scope = forms.CharField(label="Scope", required=False, max_length=400, widget=forms.TextInput(attrs=_CODE))

    def __init__(self, data: Any = None) -> None:
        super().__init__(data)
        if data is not None:
            self.fields["header"].required = data.get("kind") == CredentialKind.HEADER
            for name in ("token_url", "client_id"):
                self.fields[name].required = data.get("kind") == CredentialKind.CLIENT_CREDENTIALS


class TryForm(forms.Form):
    """One call of a tool that only reads."""

    tool = forms.ChoiceField(label="Tool")
    arguments = forms.CharField(
        label="Arguments",
        required=False,
        max_length=8000,
        initial="{}",
        widget=forms.Textarea(attrs={**_CODE, "rows": "6"}),
        help_text="A JSON object that fits the tool's schema.",
    )

    def __init__(self, tools: Iterable[McpTool], data: Any = None) -> None:
        super().__init__(data)
        choices = [(str(tool.pk), spelt_text(tool.name)) for tool in tools]
        self.fields["tool"].choices = choices  # type: ignore[attr-defined]

    def clean_arguments(self) -> dict[str, Any]:
        try:
            parsed = parse_strict((self.cleaned_data["arguments"].strip() or "{}").encode())
        except (RemitError, json.JSONDecodeError) as error:
            raise forms.ValidationError(getattr(error, "message", "Not JSON.")) from error
        if not isinstance(parsed, dict):
            raise forms.ValidationError("A JSON object, in braces.")
        return parsed
