"""The import path: our source root must shadow nothing, and nothing installed may shadow our packages."""

import importlib
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_platform_is_the_standard_library() -> None:
    assert Path(platform.__file__).parent == Path(sysconfig.get_path("stdlib"))
    assert platform.python_version() == sys.version.split()[0]


def test_the_source_root_has_no_init_file_that_would_shadow_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.parametrize("name", ["agents", "budgets", "governance", "frontend"])
def test_each_pillar_is_ours(name: str) -> None:
    assert ROOT / name in [Path(folder).resolve() for folder in importlib.import_module(name).__path__]


def test_controlplane_comes_from_the_platform_folder() -> None:
    module = importlib.import_module("controlplane")
    assert Path(module.__file__).parent == ROOT / "platform" / "controlplane"
    assert module.celery_app.main == "remit"


def test_manage_py_sees_the_same_names_from_any_folder(tmp_path: Path) -> None:
    program = (
        f"import sys, runpy; sys.path[0] = {str(ROOT)!r}; runpy.run_path({str(ROOT / 'manage.py')!r});"
        "import platform, agents, controlplane; print(platform.python_version());"
        "print(list(agents.__path__)[0]); print(controlplane.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    version, agents, controlplane = done.stdout.splitlines()
    assert version == platform.python_version()
    assert Path(agents) == ROOT / "agents"
    assert Path(controlplane) == ROOT / "platform" / "controlplane" / "__init__.py"
