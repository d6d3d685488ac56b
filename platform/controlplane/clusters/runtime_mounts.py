"""What must be shown inside a sandbox for a language runtime to run there. /usr is always shown, so not listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from controlplane.clusters.types import Mount


def python_runtime_mounts(venv: Path) -> list[Mount]:
    """Read-only mounts for a virtualenv: itself and its base interpreter, each where its own links look for it."""
    venv = venv.absolute()
    mounts = _shown_at(venv)
    home = _base_interpreter_folder(venv)
    for folder in (home, *(hop.parent for hop in _links(venv / "bin" / "python"))):
        if not _within(folder, venv):
            mounts += _shown_at(_prefix_of(folder))
    return _without_repeats(mounts)


def interpreter_mounts(executable: Path, prefix: Path) -> list[Mount]:
    """Read-only mounts for a plain interpreter (no virtualenv) and its library below `prefix`."""
    mounts = _shown_at(prefix.absolute())
    for hop in _links(executable.absolute()):
        if not _within(hop, prefix.resolve()) and not _within(hop, prefix.absolute()):
            mounts += _shown_at(_prefix_of(hop.parent))
    return _without_repeats(mounts)


def node_runtime_mounts(executable: Path, package_folders: Sequence[Path] = ()) -> list[Mount]:
    """Read-only mounts for a Node.js binary and the package folders a program loads."""
    mounts: list[Mount] = []
    for hop in _links(executable.absolute()):
        mounts += _shown_at(hop)
    for folder in package_folders:
        mounts += _shown_at(folder.absolute())
    return _without_repeats(mounts)


def _base_interpreter_folder(venv: Path) -> Path:
    for line in (venv / "pyvenv.cfg").read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            return Path(value.strip())
    raise ValueError(f"{venv} is not a virtualenv: its pyvenv.cfg names no home.")


def _links(path: Path) -> list[Path]:
    """The path itself and every place its chain of symbolic links leads through."""
    hops = [path]
    while hops[-1].is_symlink() and len(hops) < 40:
        target = hops[-1].readlink()
        hops.append(target if target.is_absolute() else Path(*_normal(hops[-1].parent / target)))
    return hops


def _normal(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1] or parts
        else:
            parts.append(part)
    return parts


def _prefix_of(bin_folder: Path) -> Path:
    return bin_folder.parent if bin_folder.name == "bin" else bin_folder


def _shown_at(path: Path) -> list[Mount]:
    """The real path at the name by which it is called, and at its own name when they differ."""
    real = path.resolve(strict=True)
    places = {path, real}
    return [Mount(source=str(real), target=str(place)) for place in sorted(places) if not _always_shown(place)]


def _always_shown(path: Path) -> bool:
    return any(_within(path, Path(root)) for root in ("/usr", "/bin", "/sbin", "/lib", "/lib64"))


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _without_repeats(mounts: list[Mount]) -> list[Mount]:
    """Drop what another mount of the same tree already shows."""
    kept: list[Mount] = []
    for mount in sorted(set(mounts), key=lambda item: item.target):
        covered = any(
            _within(Path(mount.target), Path(other.target))
            and Path(other.source) / Path(mount.target).relative_to(other.target) == Path(mount.source)
            for other in kept
        )
        if not covered:
            kept.append(mount)
    return kept
