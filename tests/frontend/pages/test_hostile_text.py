"""Whatever people, agents and servers write: no page and no file lets it run, steer a terminal or turn a line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.core.validators import validate_email
from django.db import connection, models
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import CredentialKind
from agents.grants import parse_grants
from agents.models import McpServer, Mission, MissionVersion
from agents.saved_views import SavedView, filters_of
from agents.servers import credentials
from agents.servers.addresses import url_problem
from agents.servers.sandboxes import mount_errors
from agents.servers.types import MountRequest
from controlplane.tenancy.models import Invitation, User
from controlplane.tenancy.types import Principal, Role
from governance import services as governance
from governance.bundles import BundleSource
from governance.models import Action, Escalation, PolicyBundle
from tests.frontend.pages import every_address
from tests.frontend.pages.foreign import BY_SECRET, furnish, pages

# A formula, a script, a terminal sequence, a line that is turned around. Short, so that most fields hold all of it.
HOSTILE = "=1+<script>x\x1b[31m\u202e{}"
NEVER = ("<script>x", "\x1b", "\u202e")
OURS = ("agents", "budgets", "governance", "controlplane")
# The same without what the checks of an address, a header or a name refuse.
LINE = "=1+<script>x{}"
# Rows that only Remit writes, out of its own words, hashes and numbers.
OF_REMIT = {
    *("idempotency.IdempotencyKey", "tenancy.SignInLink", "audit.Seal", "audit.SigningKey", "audit.Checkpoint"),
    *("audit.Restatement", "clusters.Cluster", "governance.Permit", "budgets.Chain", "budgets.Guard"),
    *("budgets.CostState",),
}
# Rows that are planted through the product itself, which checks how their parts fit each other.
PLANTED = {"governance.PolicyBundle", "agents.ServerCredential"}
# Names of things in code, ids and digests: checked by pattern or looked up when they come in.
CODE = {
    *("slug", "currency", "time_zone", "password", "hash", "hint", "kind", "tool", "digest", "trace_id", "event"),
    *("actor_kind", "subject_type", "proposer_kind", "reason_code", "level", "stamp", "seen", "template", "list"),
    *("environment", "protocol_version", "purpose", "isolation", "applied_under", "qualified_name", "commitment"),
    *("path", "exit_reason", "team_ids", "window_ids", "rate_ids", "key_id", "excluded_user_ids", "scopes", "roles"),
    *("preferences", "resources", "counts", "proofs", "desired_resources", "observed_resources", "progress"),
    *("token_class",),
}
_ADDRESSES = {"budgets.CostMission.goal"}  # what finds the row
Shape = Callable[[Any, int], Any]


def email(_: Any, number: int) -> str:
    return f'"=1+<script>x\x1b{number}"@northwind.example'


def url(value: Any, number: int) -> Any:
    return value and f"https://x.example/{LINE.format(number)}"


def line(_: Any, number: int) -> str:
    return LINE.format(number)


def labels(_: Any, number: int) -> list[str]:
    return [HOSTILE.format(number)]


def mounts(_: Any, number: int) -> list[dict[str, Any]]:
    text = HOSTILE.format(number)
    return [{"source": f"missions/{{mission}}/{text}", "target": f"/{text}", "writable": False}]


def grants(value: Any, number: int) -> list[dict[str, Any]]:
    """A sentence for every other one, which stands in place of its rules."""
    text = HOSTILE.format(number)
    worded = {"constraints": {text: {"like": text, "one_of": [text]}}}
    return [{**grant, **worded, "sentence": text if at % 2 else ""} for at, grant in enumerate(value)]


def query(_: Any, number: int) -> str:
    return filters_of(urlencode({"q": HOSTILE.format(number)}))


def envelope(value: Any, number: int) -> Any:
    return {**value, "arguments": _inside(value.get("arguments", {}), HOSTILE.format(number))}


# What is checked when it comes in, as the worst that passes; `test_what_is_planted_passes…` holds it to that.
SHAPED: dict[str, Shape] = {
    "tenancy.User.email": email,
    "tenancy.Invitation.email": email,
    "agents.McpServer.url": url,
    "agents.McpServer.mounts": mounts,
    "agents.MissionVersion.grants": grants,
    "agents.SavedView.query": query,
    "agents.McpTool.effects": labels,
    "governance.Action.effects": labels,
    "governance.Action.envelope": envelope,
    "governance.Action.idempotency_key": line,
    "governance.BreakGlass.policies": labels,
    "governance.Escalation.policies": labels,
    "governance.Decision.approved_policies": labels,
    "governance.Decision.judged_policies": labels,
}


def fields_of(model: type[models.Model]) -> Iterator[models.Field[Any, Any]]:
    for field in model._meta.concrete_fields:
        label = f"{model._meta.label}.{field.name}"
        if label not in SHAPED and (field.choices or field.name in CODE or field.name.endswith("sha256")):
            continue
        if label not in _ADDRESSES and isinstance(
            field, models.CharField | models.TextField | models.JSONField | ArrayField
        ):
            yield field


def written_models() -> list[type[models.Model]]:
    found = [model for model in apps.get_models() if model.__module__.split(".")[0] in OURS]
    return [model for model in found if model._meta.label not in OF_REMIT | PLANTED and any(fields_of(model))]


def spoil(value: Any, field: models.Field[Any, Any], number: int) -> Any:
    """The value with every text in it replaced; keys and shapes stay."""
    if (shaped := SHAPED.get(f"{field.model._meta.label}.{field.name}")) is not None:
        return shaped(value, number)
    text = HOSTILE.format(number)
    if isinstance(value, str) or value is None:
        return text[: field.max_length] if isinstance(field, models.CharField | models.TextField) else value and text
    return _inside(value, text)


def _inside(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        kept = ("type", "state", "verdict", "name", "id", "policies")  # by these the pages find their way
        return {key: inner if key in kept else _inside(inner, text) for key, inner in value.items()}
    if isinstance(value, list):
        return [_inside(inner, text) for inner in value]
    return text if isinstance(value, str) and not re.fullmatch(r"[0-9.:TZ+-]+", value) else value


def spoil_everything() -> set[str]:
    """Every such field of every row, past all checks. The fields that had rows."""
    reached = set()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for model in written_models():
            fields = list(fields_of(model))
            cursor.execute(f'ALTER TABLE "{model._meta.db_table}" DISABLE TRIGGER USER')
            for number, row in enumerate(model._base_manager.order_by("pk")):
                changed = {field.name: spoil(getattr(row, field.attname), field, number) for field in fields}
                model._base_manager.filter(pk=row.pk).update(**changed)
                reached |= {f"{model._meta.label}.{field.name}" for field in fields}
            cursor.execute(f'ALTER TABLE "{model._meta.db_table}" ENABLE TRIGGER USER')
    return reached


@pytest.fixture
def spoilt(asked: Any, busy: Any, as_nadia: Principal, far: McpServer, rules_of_their_own: None) -> Any:
    furnish(asked)
    too_much = asked.draft("Too much for one", budget="7.00")
    agents.submit_mission(actor=asked.owner, mission_id=too_much.pk)
    asked.addresses = addresses(asked)
    asked.reached = spoil_everything()
    return asked


@pytest.fixture
def far(asked: Any, as_nadia: Principal, nadia: User) -> McpServer:
    """A server elsewhere, with a credential whose every part is hostile."""
    server = McpServer.objects.create(
        organisation=asked.organisation,
        name="Far",
        slug="far",
        transport="http",
        url="https://x.example",
        created_by=nadia,
    )
    credential = credentials.Credential(
        CredentialKind.CLIENT_CREDENTIALS,
        secret="0123456789abcdef",
        token_url=url("https", 0),
        client_id=LINE.format(1),
        scope=LINE.format(2),
    )
    credentials.set_credential(actor=as_nadia, server_id=server.pk, credential=credential)
    return server


@pytest.fixture
def rules_of_their_own(asked: Any, as_nadia: Principal, make_person: Any, acting: Any) -> None:
    """The baseline, with names, messages, remedies and cases that an operator may load like this."""
    text, second = HOSTILE.format(0), acting(make_person("Vera", asked.organisation, Role.ADMIN))
    bundle = PolicyBundle.objects.get(organisation=None, state="active")
    policies, cases = bundle.policies, json.dumps(bundle.golden_cases)
    for identifier in re.findall(r'@id\("([^"]+)"\)', policies):
        policies = policies.replace(f'"{identifier}"', f'"{identifier}{text}"')
        cases = cases.replace(f'"{identifier}"', json.dumps(identifier + text))
    policies = re.sub(r'@(message|remedy)\("', lambda found: found[0] + text, policies)
    named = [{**case, "name": f"{text} {case['name']}"} for case in json.loads(cases)]
    source = BundleSource(policies=policies, schema=bundle.schema, golden_cases=named)
    loaded = governance.load_bundle(actor=as_nadia, name=text, source=source)
    governance.promote_bundle(actor=second, bundle_id=loaded.pk)


def addresses(world: Any) -> list[str]:
    """Every page there is, with rows of Northwind where it names some."""
    found = {reverse(name) for name in every_address.CLOSED_LISTS}
    words = {"what", "list_name"}
    for route in pages():
        if route.name not in BY_SECRET and not set(route.parameters) & words:
            found |= set(route.addresses(world))
    found |= {f"{reverse(name)}?format=csv" for name in ("missions", "agents", "audit", "approval-health", "servers")}
    far = McpServer.objects.get(slug="far").pk
    found |= {reverse(name, args=[far]) for name in ("server", "server-teams", "server-try", "server-credential")}
    return sorted({*found, *every_address.items(world).values()})


def without_what_is_edited(html: str) -> str:
    """A form gives back what it was given, or saving it would change it: boxes to type in are left out, and what a
    button copies, for the same reason."""
    html = re.sub(r'data-copy="[^"]*"', "", html)
    html = re.sub(r"<textarea.*?</textarea>", "", html, flags=re.DOTALL)
    return re.sub(r"<input [^>]*>", lambda tag: tag[0] if "<script" in tag[0] else "", html)


def test_most_fields_that_are_written_were_reached(spoilt: Any) -> None:
    wanted = {"tenancy.User.name", "agents.Agent.name", "agents.Mission.title", "governance.Action.arguments"}
    wanted |= {"governance.Vote.reason", "audit.Entry.payload", "agents.McpTool.definition", "agents.McpServer.error"}
    wanted |= {"budgets.LimitChange.reason", "tenancy.Team.name", "agents.Stop.reason", "governance.BreakGlass.reason"}
    wanted |= {"agents.AgentVersion.program", "agents.Mission.settings", "agents.MissionVersion.residency"}
    wanted |= {"governance.ApprovalRoute.amount_argument", "budgets.Price.key", *SHAPED}
    assert wanted <= spoilt.reached
    assert "<script>x" in Mission.objects.get(pk=spoilt.mission.pk).title


def test_what_is_planted_passes_the_checks_of_what_comes_in(spoilt: Any) -> None:
    for address in (*User.objects.values_list("email", flat=True), *Invitation.objects.values_list("email", flat=True)):
        validate_email(address)
    assert {url_problem(row.url) for row in McpServer.objects.exclude(url="")} == {""}
    for server in McpServer.objects.all():
        assert mount_errors([MountRequest(**mount) for mount in server.mounts]) == []
    for version in MissionVersion.objects.all():
        assert parse_grants(version.grants)
    for view in SavedView.objects.all():
        assert filters_of(view.query) == view.query
    for key in Action.objects.exclude(idempotency_key=None).values_list("idempotency_key", flat=True):
        assert re.fullmatch(r"[!-~]{1,117}", key)


def test_no_page_and_no_file_is_turned_by_what_somebody_wrote(
    spoilt: Any,
    nadia: User,
    alice: User,
    dana: User,
    finn: User,
    make_person: Callable[..., User],
    signed_in: Callable[..., Client],
) -> None:
    auditor = make_person("Petra", spoilt.organisation, Role.AUDITOR)
    wrong: list[str] = []
    for who, least in ((nadia, 60), (alice, 40), (dana, 30), (finn, 30), (auditor, 40)):
        seen = 0
        browser = signed_in(who)
        browser.defaults["HTTP_USER_AGENT"] = HOSTILE.format(0)
        for problem in looked_at(browser, spoilt.addresses):
            seen += problem is None
            wrong += [f"{who.pk.hex[-4:]} {problem}"] if problem else []
        assert seen > least, "the hostile text is shown somewhere"
    assert wrong == []


def looked_at(browser: Client, paths: list[str]) -> Iterator[str | None]:
    """What is wrong with the pages and files; None for each that shows the hostile text as text."""
    for path in paths:
        answer = browser.get(path)
        if answer.status_code in (405, 302, 410):
            continue
        text = (b"".join(answer) if answer.streaming else answer.content).decode()
        if answer.status_code >= 500:
            yield f"{path}: status {answer.status_code}"
        if "script&gt;x" in text or "<script>x" in text:
            yield None
        if answer["Content-Type"].startswith("text/csv"):
            yield from (f"{path}: cell {cell[:60]!r}" for cell in formulas(text))
            yield from (f"{path}: {what!r}" for what in NEVER[1:] if what in text)
            continue
        yield from (f"{path}: markup in {where}" for where in markup_in_attributes(text))
        shown = without_what_is_edited(text)
        yield from (f"{path}: {what!r}: {around(shown, what)}" for what in NEVER if what in shown)


class Attributes(HTMLParser):
    """Where the markup of `visible_text` stands inside a tag: its quotes end the attribute it was put into."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if "<" in name or re.search(r"<(span|data|time|code) ", value or ""):
                self.broken.append(f"{tag} {name}={value}")


def markup_in_attributes(html: str) -> list[str]:
    parser = Attributes()
    parser.feed(html)
    return parser.broken


def formulas(text: str) -> Iterator[str]:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            bare = cell.strip()
            if bare[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"[+-][0-9.]+", bare) and bare != "-":
                yield cell


def around(text: str, what: str) -> list[str]:
    """What stands before each place that it is in."""
    return [text[max(0, found.start() - 120) : found.end()] for found in re.finditer(re.escape(what), text)]


def test_a_hidden_character_in_a_title_leaves_the_buttons_and_titles_of_pages_whole(
    world: Any, dana: User, signed_in: Callable[..., Client]
) -> None:
    mission = world.draft("Big one \u202etxet", budget="7.00")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    browser = signed_in(dana)
    for address in (reverse("home"), reverse("approvals"), reverse("approval", args=[Escalation.objects.get().pk])):
        html = browser.get(address).content.decode()
        assert "txet" in html
        assert markup_in_attributes(html) == []
        assert "\u202e" not in html
    assert "\u202e" not in b"".join(browser.get(reverse("missions") + "?format=csv")).decode()
