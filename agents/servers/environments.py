"""Environments of their own for stdio servers and sample agents, built from hashed requirement files.

Which server uses which environment, and starting it in a sandbox, is not decided here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from controlplane.config import configuration

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
NODE_REQUIREMENTS = REQUIREMENTS / "node"
NODE_PACKAGES: Mapping[str, str] = {
    "@modelcontextprotocol/server-filesystem": "filesystem",
    "@modelcontextprotocol/server-everything": "everything",
}
INSTALL_TIMEOUT_SECONDS = 600
# Installers run code of ours only, yet they have no need of what opens our database or signs our permits.
SECRET_VARIABLES = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "EMAIL_URL", "REMIT_METRICS_TOKEN")
SECRET_PREFIXES = ("OIDC_", "JUDGE_")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """A Python environment. A sandbox needs every folder of `read_only`, and needs none of them writable."""

    name: str
    path: Path
    python: Path
    read_only: tuple[Path, ...]

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Command line that runs the interpreter deaf to PYTHON… variables and the user's own packages."""
        return (str(self.python), "-I", *arguments)


@dataclass(frozen=True)
class NodeEnvironment:
    """An npm package with what it depends on. `script` is the program the package names as its own."""

    package: str
    path: Path
    node: Path
    script: Path
    read_only: tuple[Path, ...]

    def command(self, *arguments: str) -> tuple[str, ...]:
        return (str(self.node), str(self.script), *arguments)


class EnvironmentUnavailable(Exception):
    """The environment could not be made; `message` says why and `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy


class BeingInstalled(EnvironmentUnavailable):
    """Somebody else builds it at this moment."""


def names() -> tuple[str, ...]:
    """Every Python environment there is a requirement file for."""
    return tuple(sorted(file.stem for file in REQUIREMENTS.glob("*.txt")))


def environment(
    name: str, *, state_dir: Path | None = None, progress: Progress | None = None, waits: bool = True
) -> Environment:
    """Return the environment `name`, building it first when this state directory doesn't have it yet.

    Processes that ask at the same time wait for the one that builds, or are told so. A half-built environment is never
    visible. Raises EnvironmentUnavailable, BeingInstalled.
    """
    if name not in names():
        raise EnvironmentUnavailable(f"There is no environment named “{name}”.", f"Known: {', '.join(names())}.")
    requirements = REQUIREMENTS / f"{name}.txt"
    fingerprint = _fingerprint(requirements.read_bytes(), sys.version.encode(), sys.base_prefix.encode())
    path = _environments(state_dir) / f"{name}-{fingerprint}"
    python = path / "bin" / "python"
    if not python.exists():
        with _building(path, python, name, progress, waits=waits) as draft:
            if draft is not None:
                _install_python(draft, requirements)
    return Environment(name=name, path=path, python=python, read_only=(path, Path(sys.base_prefix)))


def node_environment(
    package: str, *, state_dir: Path | None = None, progress: Progress | None = None, waits: bool = True
) -> NodeEnvironment:
    """Return the environment of an npm package we ship a lock file for; same promises as `environment`."""
    name = NODE_PACKAGES.get(package)
    if name is None:
        raise EnvironmentUnavailable(f"There is no lock file for “{package}”.", f"Known: {', '.join(NODE_PACKAGES)}.")
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise EnvironmentUnavailable(f"“{package}” needs node and npm, which are not on the PATH.", "Install Node 20.")
    manifest, lock = (NODE_REQUIREMENTS / name / file for file in ("package.json", "package-lock.json"))
    fingerprint = _fingerprint(manifest.read_bytes(), lock.read_bytes())
    path = _environments(state_dir) / f"node-{name}-{fingerprint}"
    script = path / "node_modules" / package / "dist" / "index.js"
    if not script.exists():
        with _building(path, script, package, progress, waits=waits) as draft:
            if draft is not None:
                _install_node(draft, npm, (manifest, lock), script.relative_to(path))
    return NodeEnvironment(package=package, path=path, node=Path(node), script=script, read_only=(path,))


@contextmanager
def _building(path: Path, entry: Path, name: str, progress: Progress | None, *, waits: bool) -> Iterator[Path | None]:
    """Hold the lock of `path`; yield a draft to fill that becomes `path`, or None when somebody else was faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BeingInstalled(f"The environment of {name} is being installed.", "Wait a moment.") from error
        # Complete by construction (drafts are renamed), unless the interpreter it points to has since been removed.
        if entry.exists():
            yield None
            return
        if progress is not None:
            progress(f"Installing the environment of {name} (once)")
        # Under the lock nobody else builds this one: drafts of it are left-overs of a build that was killed.
        for leftover in path.parent.glob(f".{path.name}.draft-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.rmtree(path, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.draft-", dir=path.parent))
        try:
            # Servers run under another user id inside their sandbox.
            draft.chmod(0o755)
            yield draft
            draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _install_python(draft: Path, requirements: Path) -> None:
    uv = find_uv_bin()
    interpreter = os.path.realpath(sys.executable)
    _run([uv, "venv", "--quiet", "--relocatable", "--no-project", "--allow-existing", "-p", interpreter, str(draft)])
    # Wheels only: nothing a package ships is run while it is installed. Compiled now, as sandboxes see it read-only.
    options = ["--quiet", "--require-hashes", "--no-build", "--compile-bytecode"]
    _run([uv, "pip", "sync", *options, "--python", str(draft / "bin" / "python"), str(requirements)])


def _install_node(draft: Path, npm: str, files: Sequence[Path], script: Path) -> None:
    for file in files:
        shutil.copyfile(file, draft / file.name)
    options = ["--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    _run([npm, "ci", *options], folder=draft)
    if not (draft / script).is_file():
        raise EnvironmentUnavailable(f"The package has no {script}.", "Its layout changed: lock another version.")


def _run(command: Sequence[str], *, folder: Path | None = None) -> None:
    allowed = {
        key: value
        for key, value in os.environ.items()
        if key not in SECRET_VARIABLES and not key.startswith(SECRET_PREFIXES)
    }
    tool = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=allowed,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{tool} did not finish within {INSTALL_TIMEOUT_SECONDS} seconds."
        raise EnvironmentUnavailable(message, "Check the network and try again.") from error
    except OSError as error:
        raise EnvironmentUnavailable(f"{tool} could not be started: {error}.", "Check the installation.") from error
    if done.returncode == 0:
        return
    last_words = " ".join((done.stderr or done.stdout).split())[-600:]
    message = f"{tool} ended with code {done.returncode}: {last_words}"
    raise EnvironmentUnavailable(message, "Check the network, the package index settings and the free disk space.")


def _environments(state_dir: Path | None) -> Path:
    return (state_dir or configuration().state_dir).resolve() / "environments"


def _fingerprint(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:12]
