"""What lists and pages show of a mission beside its own row, and what goes on with it in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from agents.choices import MissionState, Outcome, RunState, Runtime
from agents.models import Mission, Run
from budgets.types import Balance
from governance.models import Action, Escalation


@dataclass(frozen=True)
class MissionRow:
    """`run` is the last attempt, `question` the oldest one that is open, `waits_for` who has to answer it."""

    mission: Mission
    goal: str
    balance: Balance | None
    last_action: Action | None
    run: Run | None
    waiting: int
    question: Escalation | None
    waits_for: str

    @property
    def waiting_text(self) -> str:
        others = self.waiting - 1
        more = f"; {others} more question{'' if others == 1 else 's'}" if others > 0 else ""
        return f"Waits for {self.waits_for}{more}"

    @property
    def claim_waits(self) -> bool:
        return self.mission.outcome == Outcome.CLAIMED and self.mission.ended_at is None

    @property
    def going_on(self) -> str:
        """What the state alone does not tell. Empty when there is nothing to explain."""
        if self.mission.state != MissionState.ACTIVE or self.run is None:
            return ""
        if self.mission.program_ended:
            return self._after_the_program()
        if self.claim_waits:
            return "The agent says that it is finished, and still runs."
        if self.mission.agent.runtime == Runtime.EXTERNAL:
            return "" if self.run.first_call_at else self._before_the_first_call(self.run)
        return "The sandbox is being started." if self.run.state in (RunState.PENDING, RunState.STARTING) else ""

    @staticmethod
    def _before_the_first_call(run: Run) -> str:
        if run.attempt == 1:
            return "Nothing has called yet: connect your agent as shown below."
        called = f"Nothing has called in attempt {run.attempt} yet."
        return f"{called} It needs the token shown below; a credential of its own goes on."

    def _after_the_program(self) -> str:
        if self.claim_waits:
            return f"The program ended and says that it is finished; {self.mission.owner.name} accepts or rejects that."
        if self.question is not None:
            return f"The program ended; the question to {self.waits_for} is still open."
        return "Nothing runs: try again, or stop the mission."
