"""Language runtimes that live outside /usr run inside, with what their mounts list and no more."""

import json
import os
import shutil
import sys
import venv
from pathlib import Path

import pytest

from controlplane.clusters.runtime_mounts import node_runtime_mounts, python_runtime_mounts
from controlplane.clusters.types import ExitReason, Mount, Resources, SandboxSpec

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtualenv with one package of ours in it."""
    folder = tmp_path_factory.mktemp("runtime") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "greeting.py").write_text("words = 'from the virtualenv'\n")
    return folder


def test_virtualenv_runs_inside_with_its_packages(node, name, environment):
    script = "import greeting, ssl, sqlite3, asyncio, os; print(greeting.words, os.access(os.__file__, os.W_OK))"
    node.driver.apply(
        SandboxSpec(
            name=name,
            command=(str(environment / "bin" / "python"), "-c", script),
            mounts=python_runtime_mounts(environment),
            gateway=False,
        )
    )
    status = node.wait(name)
    assert node.output(name) == "from the virtualenv False\n"
    assert status.exit_reason is ExitReason.COMPLETED


def test_own_virtualenv_runs_the_mcp_library_inside(node, name):
    folder = Path(sys.prefix)
    if sys.prefix == sys.base_prefix:
        pytest.skip("these tests do not run from a virtualenv")
    node.driver.apply(
        SandboxSpec(
            name=name,
            command=(str(folder / "bin" / "python"), "-I", "-c", "import mcp, pydantic; print('imported')"),
            mounts=python_runtime_mounts(folder),
            resources=Resources(cpu_millicores=2000 if os.cpu_count() > 1 else 1000),
            gateway=False,
        )
    )
    node.wait(name, seconds=60)
    assert node.output(name) == "imported\n"


def test_mounts_are_real_paths_read_only_and_outside_usr(environment):
    mounts = python_runtime_mounts(environment)
    assert str(environment) in [mount.target for mount in mounts]
    for mount in mounts:
        assert os.path.realpath(mount.source) == mount.source
        assert not mount.writable
        assert not mount.target.startswith("/usr")


def test_linked_base_interpreter_is_shown_under_both_names(tmp_path):
    base = tmp_path / "pythons" / "3.11.7"
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "python3.11").touch()
    (base / "bin" / "python3").symlink_to("python3.11")
    (tmp_path / "pythons" / "3.11").symlink_to("3.11.7")
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(tmp_path / "pythons" / "3.11" / "bin" / "python3")
    (folder / "pyvenv.cfg").write_text(f"home = {tmp_path}/pythons/3.11/bin\n")
    shown = {(mount.source, mount.target) for mount in python_runtime_mounts(folder)}
    assert shown == {
        (str(folder), str(folder)),
        (str(base), str(base)),
        (str(base), str(tmp_path / "pythons" / "3.11")),
    }


def test_folder_that_is_no_virtualenv_is_refused(tmp_path):
    (tmp_path / "pyvenv.cfg").write_text("version = 3.11\n")
    with pytest.raises(ValueError, match="not a virtualenv"):
        python_runtime_mounts(tmp_path)


def test_javascript_runs_inside_with_a_package_folder(node, name):
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node.js is not installed")
    package = node.shared("package")
    (package / "index.js").write_text("module.exports = {words: 'from the package'}")
    mounts = [*node_runtime_mounts(Path(program)), Mount(str(package), "/srv/package")]
    script = "console.log(JSON.stringify(require('/srv/package').words))"
    node.driver.apply(SandboxSpec(name=name, command=(program, "-e", script), mounts=mounts, gateway=False))
    node.wait(name, seconds=30)
    assert json.loads(node.output(name)) == "from the package"


def test_package_folders_of_javascript_are_listed_once(tmp_path):
    outer, inner = tmp_path / "modules", tmp_path / "modules" / "inner"
    inner.mkdir(parents=True)
    program = tmp_path / "bin" / "node"
    program.parent.mkdir()
    program.touch()
    targets = [mount.target for mount in node_runtime_mounts(program, [inner, outer])]
    assert targets == [str(program), str(outer)]
