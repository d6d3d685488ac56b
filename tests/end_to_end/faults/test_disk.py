"""A disk that fills up under a running installation: everyone is told, nothing is lost, and space heals it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import missing
from tests.end_to_end.faults.conftest import set_up
from tests.end_to_end.faults.site import Agent, Mission, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]

DISK_MEBIBYTES = 400


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, which only root can mount."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = Path(tempfile.mkdtemp(prefix="disk-", dir=folder))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEBIBYTES}m,mode=700", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        missing(f"no small disk can be mounted here: {mounted.stderr.strip()}", "REMIT_REQUIRE_SANDBOX")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def cramped(small_disk: Path, folder: Path) -> Iterator[Site]:
    """An installation on the small disk."""
    site = Site(small_disk)
    try:
        set_up(site, folder / "environments")
        yield site
    finally:
        site.stop()


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"0" * (1 << 20))
                file.flush()
        except OSError:
            return ballast


def test_a_full_disk_is_said_to_everyone_and_space_heals_it(cramped: Site, small_disk: Path) -> None:
    mission = Mission(*cramped.do("make_missions", 1)[0])
    agent = Agent(cramped, mission)
    assert agent.write("before").carried_out
    ballast = fill(small_disk)
    wait_until(lambda: "is full" in cramped.screen(), "the supervisor's word")
    assert "Free some space" in cramped.screen()

    def refused() -> bool:
        """A refusal is recorded too; what can't be recorded is not decided."""
        reply = agent.call("diary__read", {})
        assert not reply.carried_out
        assert reply.status in (200, 503)
        code = reply.said.get("reason_code") or reply.error["data"]["code"]
        assert code in ("grant.missing", "rate.exceeded", "database.disk_full", "database.unavailable")
        return code.startswith("database.") and reply.may_be_repeated

    wait_until(refused, "a decision that can't be recorded any more", seconds=90)
    ballast.unlink()
    cramped.wait_recovered()
    assert agent.write("after").carried_out
    wait_until(lambda: "has space again" in cramped.screen(), "the supervisor's word")
    assert cramped.diary(mission) == {"before": 1, "after": 1}
    cramped.wait_ended(mission)
    assert cramped.open_holds(mission) == 0
    cramped.check_sums()
    cramped.check_audit()
