"""Upload of `ray job submit --working-dir .`: packed here by Ray's own code, with nothing started."""

import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UPLOAD_LIMIT = 100 * 2**20  # bytes that Ray takes


def upload(folder: Path, archive: Path) -> dict[str, int]:
    """Pack a folder as `ray job submit --working-dir` does; return the files and their sizes in bytes."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), archive, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(archive) as packed:
        return {entry.filename: entry.file_size for entry in packed.infolist() if not entry.is_dir()}


def test_a_job_uploads_what_it_needs_and_little_more(tmp_path: Path) -> None:
    files = upload(ROOT, tmp_path / "upload.zip")
    assert {"tune.py", "actors/pool/worker.py", "search_spaces/zot.yaml", "requirements.txt"} <= files.keys()
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "distributed_tuner").rglob("*") if path.is_file()}
    assert {path for path in package if "__pycache__" not in path} <= files.keys()
    assert not {path.split("/")[0] for path in files} & {"runs", ".venv", ".git", "tests", "docs"}
    assert (tmp_path / "upload.zip").stat().st_size < UPLOAD_LIMIT / 20


def test_runs_environments_and_caches_are_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    left = ["runs/a/ledger.jsonl", ".venv/lib/x.so", "a/__pycache__/m.pyc", ".mypy_cache/x", ".ruff_cache/x"]
    left += [".pytest_cache/x", ".hypothesis/x", ".git/objects/x", "tests/test_x.py", "docs/x.png", ".ci/run"]
    kept = ["tune.py", "data/train.jsonl", "distributed_tuner/tasks/data/demo_train.jsonl"]
    for name in [*left, *kept]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".rayignore").write_text((ROOT / ".rayignore").read_text())
    assert set(upload(folder, tmp_path / "upload.zip")) == {*kept, ".rayignore"}
