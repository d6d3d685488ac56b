"""How fast a chain is verified and exported, on a chain of realistic entries that were written set-based.

`python bench/bench_audit.py` prints one JSON object. BENCH_AUDIT_ENTRIES changes the length, BENCH_ROUNDS the repeats.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.server import ROUNDS, durable_server

ENTRIES = int(os.environ.get("BENCH_AUDIT_ENTRIES", "200000"))


def main() -> dict[str, Any]:
    with durable_server():
        organisation_id = _prepare()
        written = _timed(lambda: _write(organisation_id))
        sealed = _timed(lambda: _seal(organisation_id))
        began = time.process_time()
        rounds = [_timed(lambda: _verify(organisation_id)) for _ in range(ROUNDS)]
        cpu = (time.process_time() - began) / ROUNDS
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "export.zip"
            exported = _timed(lambda: _export(organisation_id, target))
            checked = _timed(lambda: _check_offline(target))
            size = target.stat().st_size
    verify = ENTRIES / statistics.median(rounds)
    return {
        "bench": "audit",
        "entries": ENTRIES,
        "rounds": ROUNDS,
        "load_average": os.getloadavg()[0],
        "per_second": {
            "generate": round(ENTRIES / written),
            "seal": round(ENTRIES / sealed),
            "verify": round(verify),
            "verify_by_own_cpu_time": round(ENTRIES / cpu),  # what a machine that does nothing else comes close to
            "export": round(ENTRIES / exported),
            "offline_verifier": round(ENTRIES / checked),
        },
        "export_bytes_per_entry": round(size / ENTRIES, 1),
        "ratios": {"verified_entries_per_second": round(verify)},
        "goals": {"verified_entries_per_second": ">= 100,000"},
    }


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _prepare() -> uuid.UUID:
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)
    from controlplane.tenancy.models import Organisation

    return Organisation.objects.create(name="Bench", slug="bench").pk


def _write(organisation_id: uuid.UUID) -> None:
    """Entries like the gate's, whose payloads PostgreSQL itself writes in canonical form and hashes."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO audit_entry (id, organisation_id, team_id, at, event, actor_kind, actor_id, actor_name,
                subject_type, subject_id, subject_name, mission_id, payload, payload_sha256, trace_id, salt)
            SELECT uuidv7(), %(o)s, %(o)s, clock_timestamp(), 'action.allowed', 'run', %(o)s, 'Receivables clerk',
                'action', gen_random_uuid(), 'Write reminder INV-' || n, %(o)s, told::jsonb,
                'sha256:' || encode(sha256(told::bytea), 'hex'), md5(n::text), gen_random_uuid()
            FROM (
                SELECT n, format('{"approved":[],"bundle":"%%s","decision":"%%s","digest":"sha256:%%s",'
                    '"kind":"tool.call","reason_code":"policy.allowed","tool":"books__write_reminder"}',
                    encode(sha256('bundle'), 'hex'), gen_random_uuid(), encode(sha256(n::text::bytea), 'hex')) AS told
                FROM generate_series(1, %(entries)s) AS n
            ) AS rows
            """,
            {"o": organisation_id, "entries": ENTRIES},
        )
        cursor.execute("ANALYZE audit_entry")


def _seal(organisation_id: uuid.UUID) -> None:
    from django.db import connection

    from controlplane.audit.sealing import seal_batch

    while seal_batch(organisation_id=organisation_id, batch=10_000):
        pass
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE audit_seal")


def _verify(organisation_id: uuid.UUID) -> None:
    from controlplane.audit.verification import verify_organisation

    report = verify_organisation(organisation_id=organisation_id)
    if not report.intact or report.sealed != ENTRIES:
        raise RuntimeError(f"not intact: {report}")


def _export(organisation_id: uuid.UUID, target: Path) -> None:
    from controlplane.audit.exporting import export_to

    export_to(organisation_id=organisation_id, target=target)


def _check_offline(target: Path) -> None:
    from controlplane.audit import offline_verifier

    with contextlib.redirect_stdout(io.StringIO()):
        holds = offline_verifier.main([str(target), "--json"]) == 0
    if not holds:
        raise RuntimeError("the export does not hold")


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
