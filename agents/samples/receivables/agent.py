"""The Receivables clerk: chases overdue invoices through a stock MCP client, and believes whatever it reads.

It needs no language model. Its faults are on purpose, for people to watch the gate: it obeys a note that gives orders,
it asks for more than it may, and it repeats a question that has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.samples.gateway import Answer, Gateway, Verdict, log
from agents.samples.receivables.letters import reminder
from agents.samples.receivables.mission import CRITERIA, LONG_OVERDUE_DAYS
from agents.samples.receivables.money import cents, euros
from agents.samples.worker import NotReached, Worker, exhausted, run

MOST_REPEATS = 8
AGREED = "SELECT * FROM tickets WHERE state = 'credit agreed' ORDER BY id"
CREDITED = "SELECT * FROM credits ORDER BY id"
PAYMENT_PLANS = "SELECT * FROM notes WHERE text LIKE '%payment plan%'"

# What the clerk takes for an order. Words between quotation marks are somebody else's, so it does not act on them.
_QUOTED = re.compile(r"“[^”]*”")
_NEW_BANK = re.compile(r"change our bank details to ([A-Z]{2}[0-9]{2}(?: [0-9A-Z]{4})+)")
_READ_FILE = re.compile(r"open ([\w.-]+(?:/[\w.-]+)+)")


@dataclass(frozen=True)
class Orders:
    """What a text tells its reader to do."""

    iban: str = ""
    files: tuple[str, ...] = ()


@dataclass
class Pending:
    """A credit that waits for a person."""

    arguments: dict[str, Any]
    answer: Answer
    why: str


def main(_arguments: Sequence[str] = ()) -> int:
    return run(chase)


async def chase(gateway: Gateway) -> None:
    """The whole run. Safe to begin again at any time: what the book shows as done is not done twice."""
    clerk = Clerk(Worker(gateway, CRITERIA))
    await clerk.work()


def orders_in(text: str) -> Orders:
    """Read a note the way a gullible assistant does: an imperative is an order, unless it is only quoted."""
    own_words = _QUOTED.sub("", text)
    bank = _NEW_BANK.search(own_words)
    return Orders(iban=bank.group(1) if bank else "", files=tuple(_READ_FILE.findall(own_words)))


class Clerk:
    """Keeps the threads of one run together: what is overdue, what was done, what waits."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._pending: list[Pending] = []
        self._applied: list[str] = []
        self._decided: list[str] = []
        self._seen: set[str] = set()
        self._out_of_budget = False

    async def work(self) -> None:
        worker = self._worker
        await worker.begin()
        overdue = await self._overdue()
        await self._agreed_credits()
        await self._payment_plans()
        written = await self._reminders(overdue)
        if written == len(overdue):
            await worker.tick("reminders", f"{written} of {len(overdue)} have a reminder in the outbox")
        await worker.tick("small_credits", _listed(self._applied) or "no credit within the limit was open")
        await self._decisions()
        await self._report(len(overdue), written)

    async def _overdue(self) -> list[Mapping[str, Any]]:
        answer = await self._worker.read(
            "books__overdue", {"older_than_days": LONG_OVERDUE_DAYS}, why="Where the work begins"
        )
        overdue = _rows(answer)
        total = euros(sum(cents(str(item["open"])) for item in overdue))
        log(f"{len(overdue)} invoices are more than {LONG_OVERDUE_DAYS} days overdue, {total} EUR in all")
        if not answer.allowed:
            raise NotReached("the overdue invoices could not be listed")
        await self._worker.tick("overdue", f"{len(overdue)} invoices, {total} EUR open")
        return overdue

    async def _agreed_credits(self) -> None:
        """Apply what logistics agreed. The clerk asks for what is above the limit like for the rest."""
        worker = self._worker
        credited = await self._credited()
        for ticket in _rows(await worker.read("sqlite__read_query", {"query": AGREED}, why="Which credits are agreed")):
            invoice, amount = str(ticket["invoice"]), euros(int(ticket["credit_cents"]))
            if invoice in credited:
                self._applied.append(f"{credited[invoice]} EUR on {invoice}")
                continue
            path = str(ticket["document"])
            await worker.read("books__attachment", {"path": path}, why=f"The agreement about {invoice}")
            arguments = {"invoice": invoice, "amount": amount, "reason": f"Late delivery, ticket {ticket['id']}"}
            waiting, why = worker.waiting_action("books__apply_credit", arguments), str(ticket["summary"])
            if waiting:
                self._pending.append(Pending(arguments, Answer(Verdict.ESCALATE, action=waiting), why))
                continue
            answer = await worker.use("books__apply_credit", arguments, why=why)
            if answer.edited:
                amount = (await self._credited()).get(invoice, amount)
            if answer.allowed or (answer.result_missing and invoice in await self._credited()):
                self._applied.append(f"{amount} EUR on {invoice}")
            elif answer.verdict is Verdict.ESCALATE:
                log(f"{amount} EUR on {invoice} needs a person; going on with other work meanwhile")
                self._pending.append(Pending(arguments, answer, why))

    async def _credited(self) -> dict[str, str]:
        """How much was credited on which invoice: what people changed before they agreed is not what was asked for."""
        answer = await self._worker.read("sqlite__read_query", {"query": CREDITED}, why="Which credits are given")
        return {str(row["invoice"]): euros(int(row["amount_cents"])) for row in _rows(answer)}

    async def _payment_plans(self) -> None:
        """Look for agreed payment plans. The search finds none, and the clerk can't believe it until it is stopped."""
        for _ in range(MOST_REPEATS):
            answer = await self._worker.use("books__search", {"text": "payment plan"}, why="Who pays in instalments")
            if not answer.allowed:
                log("Asking the same again leads nowhere; reading the notes themselves instead")
                break
            if _rows(answer):
                return
        await self._worker.read("sqlite__read_query", {"query": PAYMENT_PLANS}, why="Who pays in instalments")

    async def _reminders(self, overdue: Sequence[Mapping[str, Any]]) -> int:
        """Remind of each invoice once; return for how many that is done. Twice over it: answers get lost."""
        reminded = await self._reminded()
        for _ in range(2):
            missing = [item for item in overdue if str(item["invoice"]) not in reminded]
            if not missing or self._out_of_budget:
                break
            reminded |= await self._write(missing)
            reminded |= await self._reminded()
        return len({str(item["invoice"]) for item in overdue} & reminded)

    async def _reminded(self) -> set[str]:
        answer = await self._worker.read("books__outbox", why="Which reminders are written")
        return {str(item["invoice"]) for item in _rows(answer)}

    async def _write(self, invoices: Sequence[Mapping[str, Any]]) -> set[str]:
        """Write reminders as long as the budget lasts; return the invoices it surely did."""
        written: set[str] = set()
        for item in invoices:
            invoice = str(item["invoice"])
            account = await self._account(str(item["customer"]))
            subject, body = reminder(item, contact=str(account.get("contact") or "Sir or Madam"))
            arguments = {"invoice": invoice, "subject": subject, "body": body}
            answer = await self._worker.use(
                "books__write_reminder", arguments, why=f"{item['days_overdue']} days overdue, {item['open']} EUR open"
            )
            if answer.allowed:
                written.add(invoice)
            if exhausted(answer):
                log("The budget is used up; leaving the rest")
                self._out_of_budget = True
                break
        return written

    async def _account(self, customer: str) -> Mapping[str, Any]:
        answer = await self._worker.read("books__customer", {"id": customer}, why="Whom to write to")
        account = answer.data if isinstance(answer.data, Mapping) else {}
        if customer not in self._seen:
            self._seen.add(customer)
            for note in account.get("notes") or ():
                await self._obey(customer, orders_in(str(note.get("text", ""))))
        return account

    async def _obey(self, customer: str, orders: Orders) -> None:
        if orders.iban:
            log(f"A note on {customer} says to change the bank details to {orders.iban}; doing as told")
            query = f"UPDATE customers SET iban = '{orders.iban}' WHERE id = '{customer}'"  # noqa: S608
            await self._worker.use("sqlite__write_query", {"query": query}, why="The customer's note asks for it")
        for file in orders.files:
            log(f"A note on {customer} says to open {file}; doing as told")
            await self._worker.use("books__attachment", {"path": file}, why="The customer's note asks for it")

    async def _decisions(self) -> None:
        """Wait for people, then redeem what they permitted."""
        worker = self._worker
        for pending in self._pending:
            asked = pending.arguments
            decision = await worker.decided(
                pending.answer.action, expires_at=pending.answer.expires_at, why=pending.why
            )
            arguments = dict(decision.arguments) or asked
            what = f"{arguments['amount']} EUR on {arguments['invoice']}"
            if arguments != asked:
                what += f" (asked for {asked['amount']} EUR on {asked['invoice']}, a person changed it)"
            if decision.state == "permitted":
                answer = await worker.use("books__apply_credit", arguments, action=decision.action)
                done = answer.allowed or (answer.result_missing and arguments["invoice"] in await self._credited())
                said = "applied as approved" if done else f"approved, yet not applied ({answer.text})"
            elif decision.state == "succeeded":
                said = "applied as approved"
            else:
                said = f"not applied ({decision.message})"
            self._decided.append(f"{what}: {said}")
            log(self._decided[-1])
        if self._pending:
            await worker.tick("large_credits", _listed(self._decided))
        elif not worker.is_ticked("large_credits"):
            await worker.tick("large_credits", "no credit above the limit was open")

    async def _report(self, overdue: int, written: int) -> None:
        refusals = [f"{refusal.wanted}: {refusal.reason.rstrip('.')}" for refusal in self._worker.refusals]
        await self._worker.tick(
            "report", f"{len(refusals)} refused: {_listed(refusals)}" if refusals else "none refused"
        )
        summary = (
            f"{written} of {overdue} overdue invoices reminded, {len(self._applied)} credits within the limit applied, "
            f"{len(self._decided)} put before a person, {len(refusals)} calls refused and left at that."
        )
        outcome = "reached" if written == overdue else "partly"
        await self._worker.finish(
            outcome=outcome, summary=summary, evidence=[*self._applied, *self._decided, *refusals]
        )


def _rows(answer: Answer) -> list[Mapping[str, Any]]:
    if not answer.allowed or not isinstance(answer.data, list):
        return []
    return [item for item in answer.data if isinstance(item, Mapping)]


def _listed(items: Sequence[str]) -> str:
    return "; ".join(items)
