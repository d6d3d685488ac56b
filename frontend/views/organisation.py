"""Settings: the organisation's name, time zone and limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from controlplane.common.errors import RemitError
from controlplane.tenancy import organisations
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Permission
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.time_zones import time_zones


@page
@require_http_methods(["GET", "POST"])
def settings_page(request: PersonRequest) -> HttpResponse:
    require_anywhere(request.principal, Permission.ORGANISATION_WRITE, "The organisation's settings")
    shown = organisations.settings_of(request.principal)
    form = OrganisationForm(request.POST or None, initial={name: getattr(shown, name) for name in _FIELDS})
    error: RemitError | None = None
    seen, in_force = request.POST.get("seen") or organisations.version_of(shown), []
    if request.method == "POST" and form.is_valid():
        try:
            organisations.change_settings(principal=request.principal, seen=seen, **form.cleaned_data)
        except RemitError as refused:
            error = show_error(form, refused)
            if refused.code == "organisation.changed":  # what is typed stays; sent again it starts from what is there
                shown = organisations.settings_of(request.principal)
                seen, in_force = organisations.version_of(shown), _in_force(form, shown)
        else:
            messages.success(request, "Saved.")
            return redirect("organisation")
    context = {
        "form": form,
        "error": error,
        "shown": shown,
        "seen": seen,
        "in_force": in_force,
    }
    status = error.status if error else 422 if form.errors else 200
    return render(request, "settings/organisation.html", context, status=status)


class OrganisationForm(forms.Form):
    name = forms.CharField(label="Name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "organization"}))
    time_zone = forms.ChoiceField(
        label="Time zone",
        help_text="Days and months of budgets begin at its midnight. After a change the windows under way keep what is"
        " spent in them, and days that are over stay as they were counted.",
    )
    sign_off_above = forms.DecimalField(
        label="Sign-off above",
        min_value=Decimal(0),
        max_value=organisations.LARGEST_SIGN_OFF,
        max_digits=28,
        decimal_places=12,
        help_text="Missions with a larger budget need a second person before they start.",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    token_days_max = forms.IntegerField(
        label="Longest life of a token",
        min_value=1,
        max_value=organisations.LONGEST_TOKEN_DAYS,
        help_text="For tokens issued from now on. Those in use keep their date.",
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )
    second_factor_required = forms.BooleanField(
        label="Everybody needs a second factor",
        required=False,
        help_text="Who has none sets one up before they see anything else. Tokens are not asked for it.",
    )

    def __init__(self, data: Any, *, initial: dict[str, Any]) -> None:
        initial = {**initial, "sign_off_above": f"{Decimal(initial['sign_off_above']).normalize():f}"}
        super().__init__(data, initial=initial)
        self.fields["time_zone"].choices = [(zone, zone) for zone in time_zones(initial["time_zone"])]  # type: ignore[attr-defined]


def _in_force(form: OrganisationForm, shown: Organisation) -> list[tuple[str, str]]:
    """What differs from what is typed, as the form words it."""
    now = OrganisationForm(None, initial={name: getattr(shown, name) for name in _FIELDS})
    differing = [field for field in now if getattr(shown, field.name) != form.cleaned_data[field.name]]
    return [(str(field.label), _in_words(field.initial)) for field in differing]


def _in_words(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


_FIELDS = tuple(OrganisationForm.base_fields)
