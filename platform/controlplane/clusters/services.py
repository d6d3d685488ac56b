"""Asking for sandboxes, resizing and deleting them. These write desired state; `reconciler` makes it so."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Protocol

from django.db import transaction
from django.db.models import F

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters.drivers.local import LocalDriver
from controlplane.clusters.models import Cluster, ClusterDriverKind, Sandbox
from controlplane.clusters.types import LARGEST, SMALLEST, ClusterDriver, Mount, Resources, SandboxPhase, SandboxSpec
from controlplane.common.errors import conflict, invalid, not_found
from controlplane.tenancy.types import Permission, Principal

LOCAL_CLUSTER = "local"


@dataclass(frozen=True)
class Launch:
    """The process of one sandbox. `secrets` join the environment inside and are never stored or listed."""

    command: Sequence[str]
    env: Mapping[str, str]
    mounts: Sequence[Mount]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class SandboxOwner(Protocol):
    """Who answers for sandboxes of one purpose. Registered by the owning pillar's `AppConfig.ready()`."""

    def launch(self, *, sandbox: Sandbox) -> Launch:
        """What to start, made anew at each start. Runs outside any transaction; may install what the program needs.

        Raises DriverError, permanent when it must not start any more; whatever else it raises is tried again later.
        """

    def lock(self, *, sandbox: Sandbox) -> None:
        """Called first in the transaction that will write a new phase: rows whose locks come before the sandbox's."""

    def on_change(self, *, sandbox: Sandbox) -> None:
        """Called inside the transaction that wrote a new phase."""

    def before_resize(self, *, sandbox: Sandbox, resources: Resources) -> None:
        """Called inside the transaction that asks for another size, after `lock`. RemitError where it can't be."""

    def on_ended(self, *, sandbox_ids: Sequence[uuid.UUID]) -> None:
        """Called after it was noted that unwanted sandboxes have no process left. `on_change` follows for each."""


_OWNERS: Final[dict[str, SandboxOwner]] = {}


def register_owner(purpose: str, owner: SandboxOwner) -> None:
    _OWNERS[purpose] = owner


def owner_of(sandbox: Sandbox) -> SandboxOwner:
    return owner_of_purpose(sandbox.purpose)


def owner_of_purpose(purpose: str) -> SandboxOwner:
    return _OWNERS[purpose]


def local_cluster() -> Cluster:
    return Cluster.objects.get_or_create(name=LOCAL_CLUSTER, defaults={"driver": ClusterDriverKind.LOCAL})[0]


def driver_of(cluster: Cluster) -> ClusterDriver:
    """Recipe for another kind: CONTRIBUTING, “Add a cluster driver”."""
    from django.conf import settings

    match ClusterDriverKind(cluster.driver):
        case ClusterDriverKind.LOCAL:
            return LocalDriver(settings.CONFIG.node_socket)


def request_sandbox(
    *,
    organisation_id: uuid.UUID,
    team_id: uuid.UUID,
    purpose: str,
    owner_id: uuid.UUID,
    name: str,
    program: str,
    resources: Resources,
    wall_clock_seconds: int,
    mission_id: uuid.UUID | None = None,
) -> Sandbox:
    """Desire one sandbox. Asking twice for the same owner gives the same row. Runs in the caller's transaction."""
    sandbox, _ = Sandbox.objects.get_or_create(
        purpose=purpose,
        owner_id=owner_id,
        defaults={
            "organisation_id": organisation_id,
            "team_id": team_id,
            "cluster": local_cluster(),
            "mission_id": mission_id,
            "name": name,
            "program": program,
            "wall_clock_seconds": wall_clock_seconds,
            "desired_resources": asdict(resources),
        },
    )
    _wake(sandbox)
    return sandbox


def delete_sandbox(*, sandbox_id: uuid.UUID) -> None:
    """Desire its end. Its owner has already checked who may ask."""
    rows = Sandbox.objects.filter(pk=sandbox_id)
    if rows.exclude(observed_phase=SandboxPhase.DELETED).update(desired="deleted", dirty=True, next_attempt_at=None):
        _wake(rows.get())


def delete_sandboxes(*, purpose: str, owner_ids: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
    """Desire the end of all of them. Returns their clusters: after the commit `end_now` ends them.

    Inside the caller's transaction, by an owner that has checked who may ask."""
    rows = Sandbox.objects.filter(purpose=purpose, owner_id__in=owner_ids)
    rows = rows.exclude(observed_phase=SandboxPhase.DELETED)
    # Locked by id first: whoever changes many sandboxes at once takes them in one order.
    locked = list(rows.order_by("id").select_for_update(no_key=True).values_list("pk", "cluster_id"))
    Sandbox.objects.filter(pk__in=[pk for pk, _ in locked]).update(desired="deleted", dirty=True, next_attempt_at=None)
    return frozenset(cluster_id for _, cluster_id in locked)


def end_now(*, cluster_ids: Collection[uuid.UUID], outside: Collection[uuid.UUID] = ()) -> None:
    """After commit: end what is unwanted from here, at once. Should this process die in between, a worker's sweep
    does it. `outside`: runs without a sandbox, whose servers end."""
    from controlplane.clusters import ending

    if outside:
        ending.end_guests(outside)
    for cluster_id in sorted(cluster_ids):
        ending.end_unwanted(cluster_id)


def clear_away(*, cluster_ids: Collection[uuid.UUID]) -> None:
    """Tell the workers that there is something to end, or to clear away after its end. Waits for nobody, but for a
    broker that is down."""
    from controlplane.clusters import tasks

    for cluster_id in sorted(cluster_ids):
        tasks.reconcile.wake(str(cluster_id))


def resize_sandbox(*, actor: Principal, sandbox_id: uuid.UUID, resources: Resources) -> Sandbox:
    """Desire another size of a running sandbox; the page shows desired and observed until they agree, or why not."""
    if not (
        SMALLEST.cpu_millicores <= resources.cpu_millicores <= LARGEST.cpu_millicores
        and SMALLEST.memory_bytes <= resources.memory_bytes <= LARGEST.memory_bytes
    ):
        raise invalid("sandbox.size", "A sandbox has 10 to 64,000 millicores and 16 MiB to 512 GiB.")
    with transaction.atomic():
        rows = Sandbox.objects.restrict(actor, Permission.MISSION_OPERATE)
        sandbox = rows.filter(pk=sandbox_id).first()
        if sandbox is None:
            raise not_found("sandbox")
        owner_of(sandbox).lock(sandbox=sandbox)
        sandbox = rows.select_for_update(no_key=True, of=("self",)).get(pk=sandbox_id)
        changed = rows.filter(pk=sandbox_id, desired="running", exited_at__isnull=True).update(
            desired_resources=asdict(resources),
            desired_generation=F("desired_generation") + 1,
            resize_error="",
            dirty=True,
            next_attempt_at=None,
        )
        if not changed:
            raise conflict("sandbox.ended", "This sandbox has ended; there is nothing to resize.")
        owner_of(sandbox).before_resize(sandbox=sandbox, resources=resources)
        before = sandbox.desired_resources
        record(
            event=Event.SANDBOX_RESIZED,
            actor=actor,
            subject=Subject("sandbox", sandbox.pk, sandbox.name, sandbox.team_id, sandbox.mission_id),
            payload={"from": before, "to": asdict(resources)},
        )
        _wake(sandbox)
    sandbox.refresh_from_db()
    return sandbox


def spec_of(sandbox: Sandbox, launch: Launch, *, node_epoch: str) -> SandboxSpec:
    """The driver's form of a desired sandbox. Its name is its id, so applying twice makes one, and only a node that
    has not been restarted since may make it."""
    return SandboxSpec(
        name=str(sandbox.pk),
        command=launch.command,
        env=launch.env,
        secrets=launch.secrets,
        mounts=launch.mounts,
        resources=Resources(**sandbox.desired_resources),
        wall_clock_seconds=sandbox.wall_clock_seconds,
        labels={"purpose": sandbox.purpose, "owner": str(sandbox.owner_id), "mission": str(sandbox.mission_id or "")},
        node_epoch=node_epoch,
    )


def _wake(sandbox: Sandbox) -> None:
    from controlplane.clusters import tasks

    tasks.reconcile.wake(str(sandbox.cluster_id))
