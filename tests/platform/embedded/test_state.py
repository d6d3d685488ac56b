"""The state folder: private, owned by one supervisor at a time, and never half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controlplane.common.sockets import make_private, socket_folder
from controlplane.embedded.failures import StartError
from controlplane.embedded.state import StateFolder, write_private


def test_a_second_owner_is_refused_and_told_who_has_it(state: StateFolder) -> None:
    with pytest.raises(StartError, match=f"already running on .* \\(process {os.getpid()}\\)") as caught:
        StateFolder(state.root).open()
    assert f"kill {os.getpid()}" in caught.value.remedy


def test_the_folder_is_free_again_once_its_owner_is_gone(tmp_path: Path) -> None:
    first = StateFolder(tmp_path / "state")
    first.open()
    first.close()
    second = StateFolder(tmp_path / "state")
    second.open()
    second.close()


def test_the_secret_key_is_made_once_and_for_this_user_alone(state: StateFolder) -> None:
    key = state.secret_key()
    assert len(key) == 64
    assert state.secret_key() == key
    assert (state.root / "secret_key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_refused_rather_than_replaced(state: StateFolder) -> None:
    path = state.root / "secret_key"
    path.write_text("short\n")
    with pytest.raises(StartError, match="at least 32 characters"):
        state.secret_key()
    assert path.read_text() == "short\n"


def test_the_environment_file_is_for_this_user_alone(state: StateFolder) -> None:
    state.write_environment({"SECRET_KEY": "k" * 40, "REDIS_URL": "unix:///x"})
    path = state.root / "environment"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == 'REDIS_URL="unix:///x"\nSECRET_KEY="' + "k" * 40 + '"\n'


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    write_private(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_an_open_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        make_private(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        make_private(folder)


def test_deep_state_folders_get_short_socket_folders_of_their_own(tmp_path: Path) -> None:
    first, second = (socket_folder(tmp_path / ("d" * 100) / name) for name in ("a", "b"))
    assert first != second
    assert len(os.fsencode(first)) < 80
    assert socket_folder(Path("/srv/remit")) == Path("/srv/remit/run")
