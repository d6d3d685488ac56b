"""`./manage.py costs fold | check | rebuild`: the sums behind the costs page."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from budgets.costs.checking import check_all
from budgets.costs.facts import refresh_changed
from budgets.costs.folding import fold_all, start_anew


class Command(BaseCommand):
    help = "Fold the journal's new lines into sums, compare the sums with the journal, or make them anew."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["fold", "check", "rebuild"])

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        if what == "rebuild":
            start_anew()
        folded = fold_all(most_batches=10**6)
        refresh_changed()
        self.stdout.write(f"{folded.lines} lines folded.")
        if what == "fold":
            return
        wrong = check_all()
        if wrong is None:
            raise CommandError("The worker is folding just now. Run it again.")
        for each in wrong:
            self.stderr.write(f"{each.day} team {each.team_id}: journal {each.journal}, sums {each.folded}")
        if wrong:
            raise CommandError(f"{len(wrong)} days differ. `./manage.py costs rebuild` makes the sums anew.")
        self.stdout.write("Sums and journal are equal.")
