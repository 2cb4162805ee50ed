"""The wheel: its contents, its names, and the command line that it installs, far from any checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import distributed_tuner

ROOT = Path(__file__).resolve().parents[1]
PACKED = ("distributed_tuner", "actors", "search_spaces", "pyproject.toml", "setup.py", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def done(*command: str, cwd: Path) -> str:
    """Run a command; return its output. PYTHONPATH stays out: starting Ray in this process puts the checkout there."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "PYTEST_"))}
    ended = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, f"{command} ended with {ended.returncode}: {ended.stderr}{ended.stdout}"
    return ended.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is packed: building writes into the folder, and a checkout may be edited while the tests run."""
    copy = tmp_path_factory.mktemp("source")
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    done(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), ".", cwd=source)
    (built,) = folder.glob("*.whl")
    assert not (source / "build").exists()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own that finds this one's packages; return its programs."""
    folder = tmp_path_factory.mktemp("environment")
    done(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    python = str(folder / "bin" / "python")
    done(*PIP, "--python", python, "install", "--no-deps", "--no-compile", str(wheel), cwd=folder)
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_the_wheel_has_one_name_of_its_own_and_all_that_it_reads(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        files = set(packed.namelist())
        metadata = packed.read(next(name for name in files if name.endswith("METADATA"))).decode()
        sources = {name: packed.read(name).decode() for name in files if name.endswith(".py")}
    assert {name.split("/")[0] for name in files if ".dist-info" not in name} == {"distributed_tuner"}
    for folder, inside in (("distributed_tuner", ""), ("actors", "actors/"), ("search_spaces", "search_spaces/")):
        there = [path for path in (source / folder).rglob("*") if path.is_file()]
        assert {f"distributed_tuner/{inside}{path.relative_to(source / folder)}" for path in there} <= files
    assert f"\nVersion: {distributed_tuner.__version__}\n" in metadata
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [one for one in imported if one.split(".")[0] == "actors"], name
        assert not re.search(r"[\"']actors\.", source), f"{name} names a module in a text, which is not rewritten"


def test_the_command_runs_far_from_the_repository(installed: Path, tmp_path: Path) -> None:
    told = done(str(installed / "distributed-tuner"), "check", "search_spaces/debug.yaml", cwd=tmp_path)
    assert "valid at both ends of every range" in told
    where = "import distributed_tuner.actors.run.experiment as here; print(here.__file__)"
    *_, place = done(str(installed / "python"), "-c", where, cwd=tmp_path).splitlines()  # libraries may print as well
    assert place.startswith(str(installed.parent))
    missing = "import importlib.util as u; print(u.find_spec('actors'), u.find_spec('tune'))"
    assert done(str(installed / "python"), "-c", missing, cwd=tmp_path) == "None None\n"


def test_dependencies_are_what_the_requirements_pin() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["openai"]]
    ranges = {one.name.lower(): one for one in map(Requirement, wanted)}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert ranges.keys() == {pin.name.lower() for pin in pins}
    for pin in pins:
        (exact,) = pin.specifier
        assert ranges[pin.name.lower()].specifier.contains(exact.version), f"{pin} is outside of what is installed"
    assert (
        str(ranges["torch"].specifier)
        == f"=={next(iter(next(p for p in pins if p.name == 'torch').specifier)).version}"
    )
