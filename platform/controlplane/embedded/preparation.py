"""Bringing an installation up to the code that is about to serve it: schema, static files, demo data, sign-in links."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import psycopg
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command, get_commands
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.tenancy.models import Invitation, Membership, Organisation, User

# The organisation that `manage.py demo` makes: its people may get sign-in links on this machine's terminal.
DEMO_SLUG = "northwind"


@dataclass(frozen=True)
class SignIn:
    """A person of the demo and their one-time link."""

    name: str
    email: str
    link: str


def check_database() -> None:
    """psycopg.OperationalError with the server's own words at once; the pool would retry and then say "timeout"."""
    psycopg.connect(settings.CONFIG.database_url, connect_timeout=5).close()


def migrate() -> int:
    """Apply what is missing; the number of migrations applied. Asking first is faster than applying none."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        call_command("migrate", interactive=False, verbosity=0)
    return len(plan)


def collect_static() -> bool:
    """Collect and compress static files when any of them changed; True when it did."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    wanted = _static_fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    stamp.write_text(wanted)
    return True


def load_demo() -> bool:
    """Load the demo into an installation without any organisation; True when it did."""
    if "demo" not in get_commands() or Organisation.objects.exists():
        return False
    call_command("demo", stdout=io.StringIO())
    return True


def demo_sign_ins() -> list[SignIn]:
    """Fresh one-time links for the people of the demo who may sign in; nobody's where real people work, and
    nobody's who was invited."""
    invited = Invitation.objects.filter(accepted_by__isnull=False).values("accepted_by")
    seats = Membership.objects.filter(organisation__slug=DEMO_SLUG, suspended_at__isnull=True)
    people = User.objects.filter(memberships__in=seats, is_active=True).exclude(pk__in=invited)
    return [
        SignIn(name=person.name, email=person.email, link=_sign_in_link(person.email))
        for person in people.distinct().order_by("date_joined", "id")[:5]
    ]


def _sign_in_link(email: str) -> str:
    output = io.StringIO()
    call_command("signin", user=email, json=True, stdout=output)
    return str(json.loads(output.getvalue())["link"])


def _static_fingerprint() -> str:
    lines = [settings.STORAGES["staticfiles"]["BACKEND"]]
    for finder in get_finders():
        for path, storage in finder.list([]):
            found = Path(storage.path(path)).stat()
            lines.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
