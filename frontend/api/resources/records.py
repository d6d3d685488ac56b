"""What is looked up rather than worked on: how actions were judged, the audit trail and sandboxes."""

from __future__ import annotations

import uuid
from dataclasses import replace

from django.http import FileResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from agents.selectors import run_ids_of
from controlplane.audit import jobs
from controlplane.audit import selectors as audit
from controlplane.clusters import selectors as clusters
from controlplane.clusters import services
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import Resources
from controlplane.common.cursors import foreign_cursor
from controlplane.common.errors import RemitError, not_found
from controlplane.common.http import PROBLEM_TYPE
from controlplane.common.ids import parse_id
from controlplane.idempotency.services import one_at_a_time
from controlplane.tenancy.types import Permission
from frontend.api.operations import Problem, Resource, operation
from frontend.api.shapes import records as shapes
from governance import selectors as governance

AT_ONCE_SECONDS = 2.0


class Decisions(Resource):
    tag = "decisions"

    @operation(
        "decisions_list",
        "List how an action was judged",
        permission=Permission.ACTION_VIEW,
        query=shapes.DecisionQuery,
        answer=shapes.DecisionOut,
        listed=True,
        about="The proof ladder of its page, oldest judgement first. Agents are told the answer alone.",
    )
    def get(self, request: Request) -> Response:
        if self.principal.agent_id is not None:
            remedy = "Go by what the action answered: GET /api/v1/actions/<id>."
            raise RemitError("decisions.for_people", "How an action was judged is for people.", 403, (remedy,))
        rows = governance.decisions(principal=self.principal, action_id=self.query["action"])
        return self.whole(rows, shapes.DecisionOut)


class AuditEntries(Resource):
    tag = "audit-entries"

    @operation(
        "audit_entries_list",
        "List audit entries",
        permission=Permission.AUDIT_VIEW,
        query=shapes.EntryQuery,
        answer=shapes.EntryOut,
        listed=True,
        about=(
            "Every word of `q` is looked for in names, sentences and reasons, in "
            f"{audit.SEARCHED:,} entries at a time: an empty page may go on at `next`."
        ),
    )
    def get(self, request: Request) -> Response:
        query, agent_id = self.query, self.query.get("agent")
        event, of_a_kind = query["event"], query["event"].endswith(".*")
        filters = audit.Filters(
            actor_id=query.get("actor"),
            person_id=query.get("person"),
            agent_id=agent_id,
            run_ids=tuple(run_ids_of(self.principal, agent_id)) if agent_id else (),
            event="" if of_a_kind else event,
            event_kind=event.removesuffix(".*") if of_a_kind else "",
            subject_type=query["subject_type"],
            subject_id=query.get("subject"),
            mission_id=query.get("mission"),
            since=query.get("since"),
            until=query.get("until"),
            text=query["q"],
        )
        found = audit.entries(principal=self.principal, filters=filters, cursor=self._cursor(), limit=query["limit"])
        items = shapes.EntryOut(found.items, many=True).data
        return Response({"items": items, "next": str(found.next) if found.next else None})

    def _cursor(self) -> uuid.UUID | None:
        given = self.query.get("cursor")
        cursor = parse_id(given)
        if given is not None and cursor is None:
            raise foreign_cursor()
        return cursor


class AuditEntryItem(Resource):
    tag = "audit-entries"

    @operation("audit_entries_get", "Read an audit entry", permission=Permission.AUDIT_VIEW, answer=shapes.EntryOut)
    def get(self, request: Request, entry_id: uuid.UUID) -> HttpResponseBase:
        found = audit.entry(principal=self.principal, entry_id=entry_id)
        if found is None:
            raise not_found("entry")
        return self.item(shapes.EntryOut(found).data, version="sealed" if hasattr(found, "seal") else "open")


class AuditVerify(Resource):
    tag = "audit-entries"

    @operation(
        "audit_entries_verify",
        "Check the whole audit trail",
        permission=Permission.AUDIT_VIEW,
        answer=shapes.JobOut,
        status=202,
        one_transaction=False,  # done in slices, each a transaction of its own
        about="Ask the job how far it is. One that is running already is joined.",
    )
    def post(self, request: Request) -> Response:
        job = jobs.begin(job=jobs.ask_verification(principal=self.principal), seconds=AT_ONCE_SECONDS)
        return Response(shapes.JobOut(job).data, status=202)


class AuditExport(Resource):
    tag = "audit-entries"

    @operation(
        "audit_entries_export",
        "Export the audit trail",
        permission=Permission.AUDIT_EXPORT,
        body=shapes.ExportBody,
        answer=shapes.JobOut,
        status=202,
        one_transaction=False,  # done in slices, each a transaction of its own
        about="Ask the job how far it is, then download its file.",
    )
    def post(self, request: Request) -> Response:
        asked = jobs.ask_export(principal=self.principal, start=self.body.get("start"), end=self.body.get("end"))
        return Response(shapes.JobOut(jobs.begin(job=asked, seconds=AT_ONCE_SECONDS)).data, status=202)


class AuditJobItem(Resource):
    tag = "audit-jobs"

    @operation(
        "audit_jobs_get", "Read how far a check or export is", permission=Permission.AUDIT_VIEW, answer=shapes.JobOut
    )
    def get(self, request: Request, job_id: uuid.UUID) -> HttpResponseBase:
        job = jobs.seen_by(principal=self.principal, job_id=job_id)
        return self.item(shapes.JobOut(job).data, version=job.state)


class AuditExports(Resource):
    tag = "audit-jobs"

    @operation(
        "audit_exports_list",
        "List the latest exports of the audit trail",
        permission=Permission.AUDIT_EXPORT,
        answer=shapes.JobOut,
        listed=True,
        about="The newest twenty.",
    )
    def get(self, request: Request) -> Response:
        rows = jobs.exports_of(principal=self.principal)
        return self.whole(rows, shapes.JobOut)


class AuditJobFile(Resource):
    tag = "audit-jobs"

    @operation(
        "audit_jobs_file",
        "Download a finished export",
        permission=Permission.AUDIT_EXPORT,
        answer={(200, "application/zip"): OpenApiTypes.BINARY, (410, PROBLEM_TYPE): Problem},
        about="The `verify.py` in it checks it without Remit. Each download is recorded; it is kept for a day.",
    )
    def get(self, request: Request, job_id: uuid.UUID) -> HttpResponseBase:
        path = jobs.file_of(principal=self.principal, job_id=job_id)
        return FileResponse(path.open("rb"), as_attachment=True, filename=f"remit-audit-{job_id}.zip")


class SandboxResource(Resource):
    tag = "sandboxes"

    def shown(self, sandbox: Sandbox) -> HttpResponseBase:
        return self.item(shapes.SandboxOut(sandbox).data, version=sandbox.desired_generation)


class Sandboxes(SandboxResource):
    @operation(
        "sandboxes_list",
        "List sandboxes",
        permission=Permission.SANDBOX_VIEW,
        query=shapes.SandboxQuery,
        answer=shapes.SandboxOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = clusters.sandboxes(self.principal, mission_id=self.query.get("mission"), phase=self.query.get("phase"))
        return self.page(rows, shapes.SandboxOut)


class SandboxItem(SandboxResource):
    @operation("sandboxes_get", "Read a sandbox", permission=Permission.SANDBOX_VIEW, answer=shapes.SandboxOut)
    def get(self, request: Request, sandbox_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(clusters.sandbox(self.principal, sandbox_id))


class SandboxLog(SandboxResource):
    @operation(
        "sandboxes_log",
        "Read the last part of a sandbox's output",
        permission=Permission.SANDBOX_VIEW,
        query=shapes.LogQuery,
        answer=shapes.LogOut,
    )
    def get(self, request: Request, sandbox_id: uuid.UUID) -> Response:
        found = clusters.sandbox(self.principal, sandbox_id)
        return Response(shapes.LogOut(clusters.log_of(found, last_bytes=self.query["last_bytes"])).data)


class SandboxResize(SandboxResource):
    @operation(
        "sandboxes_resize",
        "Give a running sandbox another size",
        permission=Permission.MISSION_OPERATE,
        body=shapes.ResizeBody,
        answer=shapes.SandboxOut,
        if_match=True,
        about="Desired at once; observed once the cluster has done it, or `resize_error` says why not. "
        "A larger size is held from the mission's budget first: 409 `run.budget`.",
    )
    def post(self, request: Request, sandbox_id: uuid.UUID) -> HttpResponseBase:
        one_at_a_time(f"sandbox:{sandbox_id}")
        found = clusters.sandbox(self.principal, sandbox_id)
        self.require(Permission.MISSION_OPERATE, found.team_id)
        self.must_match(found.desired_generation)
        wanted = replace(Resources(**found.desired_resources), **self.body)
        services.resize_sandbox(actor=self.principal, sandbox_id=sandbox_id, resources=wanted)
        return self.shown(clusters.sandbox(self.principal, sandbox_id))
