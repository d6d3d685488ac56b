"""Every component on one page: rendered for real, in Chromium, both themes, three widths, with axe and the real CSP.

REMIT_GALLERY=folder keeps the page and its screenshots for a person to look at.
"""

# ruff: noqa: E501 a table of samples

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.contrib import messages
from django.http import HttpRequest
from django.utils import timezone

from controlplane.common.errors import FieldError, invalid
from controlplane.tenancy.types import ALL_TEAMS, Principal, PrincipalKind, Role
from frontend.context import Frame, Strip
from governance.choices import ActionState, Verdict

pytestmark = pytest.mark.browser
HOSTILE = "\u202eexe.txt \x1b[31mred\x1b[0m <script>alert(1)</script> zero\u200bwidth"


class MissionForm(forms.Form):
    goal = forms.CharField(
        help_text="One sentence a colleague would understand. Approvers see it beside every question."
    )
    budget = forms.DecimalField(label="Budget, USD")
    why = forms.CharField(widget=forms.Textarea, required=False, label="Notes for approvers")
    approver = forms.ChoiceField(choices=[("", "Anyone who may"), ("dana", "Dana")])
    urgent = forms.BooleanField(label="Notify by mail too", required=False)

    def clean_budget(self) -> None:
        raise forms.ValidationError("Your team has $36.90 left this month. Lower it or ask for more.")


@pytest.fixture
def gallery(rendered: Callable[..., str], a_request: Callable[..., HttpRequest]) -> Callable[..., str]:
    dana = Principal(
        kind=PrincipalKind.USER,
        id=uuid.uuid4(),
        name="Dana",
        organisation_id=uuid.uuid4(),
        organisation_name="Northwind",
        roles={Role.ADMIN: ALL_TEAMS},
        time_zone="Europe/Berlin",
    )
    source = (Path(__file__).parent / "gallery.html").read_text()

    def render(cookies: dict[str, str] | None = None) -> str:
        request = a_request("/missions/1", principal=dana, cookies=cookies)
        messages.success(request, "Mission paused. Nothing is running any more.")
        messages.error(request, "Not sent. Credits above 100.00 EUR need an approver.")
        frame = Frame(request)
        frame.__dict__.update(
            approvals_waiting=3,
            strips=[Strip("No judge model is connected.", "Policies and budgets still decide.", "Connect one", "#")],
        )
        form = MissionForm({"goal": "Collect overdue invoices, October", "budget": "90"})
        now = timezone.now()
        return rendered(source, {
            "frame": frame, "form": form, "state": ActionState.WAITING, "allow": Verdict.ALLOW, "deny": Verdict.DENY,
            "ask": Verdict.ESCALATE, "identifier": uuid.uuid4(), "digest": "sha256:9f2c" + "0" * 56 + "a41b",
            "small": Decimal("0.0004"), "nothing": Decimal(0), "cost": Decimal("1234.5678"), "earlier": now - timedelta(minutes=4),
            "later": now + timedelta(hours=3), "over": {"amount"}, "limits": {"amount": "≤ 100.00 EUR alone", "invoice": "overdue invoices"},
            "arguments": {"tool": "books__apply_credit", "invoice": "INV-0131", "amount": "240.00", "note": HOSTILE, "lines": [{"account": 4730}], "tags": []},
            "hostile": HOSTILE, "log": "09:41:02 started\n09:41:03 \x1b[32mok\x1b[0m 31 invoices\n",
            "diff": [{"kind": "hunk", "text": "grants"}, {"kind": "removed", "text": "credit up to 50.00"}, {"kind": "added", "text": "credit up to 100.00"}, {"kind": "same", "text": "read invoices"}],
            "sentences": [{"tone": "allow", "text": "Read invoices and customers"}, {"tone": "ask", "text": "Larger credits: ask an approver", "note": "answer within 30 min"}, {"tone": "deny", "text": "Everything else"}],
            "burn": [Decimal(v) for v in ("0.55", "0.52", "0.50", "0.53", "0.47", "0.44", "0.45", "0.41")],
            "error": invalid("mission.invalid", "This mission cannot start yet.", FieldError("/budget", "above what is left")),
        }, request)  # fmt: skip

    return render


def _open(chromium: Any, address: str, width: int, path: str = "/") -> tuple[Any, list[str]]:
    page = chromium.new_page(viewport={"width": width, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route_web_socket("**/live", lambda socket: None)  # accepted and silent: this server speaks no websocket
    page.goto(address + path, wait_until="networkidle")
    return page, complaints


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1600])
def test_every_component_is_accessible_and_fits(
    chromium: Any, served: Callable[..., str], gallery: Callable[..., str], theme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    html = gallery({"remit_theme": theme})
    page, complaints = _open(chromium, served({"/": html}), width)
    if folder := os.environ.get("REMIT_GALLERY"):
        Path(folder, f"{theme}-{width}.html").write_text(html)
        page.screenshot(path=Path(folder, f"{theme}-{width}.png"), full_page=True)
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    assert found.violations_count == 0, found.generate_report()
    page.close()
