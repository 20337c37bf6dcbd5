"""What is shipped: wheel and sdist hold the package with its embedded model, and work where only they are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: str, cwd: Path, **environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is made from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


def test_wheel_and_sdist_hold_the_package(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    assert wheel.name == f"holdfast-{holdfast.__version__}-py3-none-any.whl"
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if path.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    assert source <= in_wheel
    assert any(name.startswith("holdfast/pocket/") and name.endswith(".safetensors") for name in in_wheel)
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in source} | {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= in_sdist
    assert not [name for name in in_wheel | in_sdist if "tests" in name.split("/") or name.endswith(".pyc")]


def test_the_wheel_runs_where_only_it_is_installed(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site))
    _run(*pip, str(wheel), cwd=tmp_path)
    lines = _run(
        sys.executable, "-c",
        "import holdfast, sys; from holdfast.cli import main; print(holdfast.__file__);"
        "sys.exit(main('tune --model pocket --data pocket:instructions --limit 20 --output run --dry-run'.split()))",
        cwd=tmp_path, PYTHONPATH=str(site),
    )  # fmt: skip
    assert lines.splitlines()[0].startswith(str(site))
    assert "effective prompt share" in lines


@pytest.mark.full
def test_the_wheel_runs_in_a_fresh_environment(dist: Path, tmp_path: Path) -> None:
    """With the locked dependencies and nothing else; needs a package index."""
    (wheel,) = dist.glob("*.whl")
    _run(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    _run(python, "-m", "pip", "install", "--quiet", "-r", str(ROOT / "requirements.lock"), cwd=tmp_path)
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel), cwd=tmp_path)
    command = str(tmp_path / "venv" / "bin" / "holdfast")
    assert _run(command, "--version", cwd=tmp_path).strip() == f"holdfast {holdfast.__version__}"
    arguments = ("--data", "pocket:instructions", "--limit", "40", "--max-steps", "2", "--output", "run")
    _run(command, "tune", "--model", "pocket", *arguments, cwd=tmp_path)
    assert (tmp_path / "run" / "summary.json").is_file()


def test_links_of_the_readme_work_outside_of_the_repository() -> None:
    """A package index shows the README alone, so what it points to has whole addresses."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", readme) + re.findall(r'src="([^"]+)"', readme)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    for link in links:  # what lies in this repository is there
        for prefix in (f"{base}/blob/main/", f"{base}/raw/main/"):
            assert not link.startswith(prefix) or (ROOT / link.removeprefix(prefix)).exists(), link


def test_the_readme_and_the_changelog_are_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=- |#)", changelog)
    assert [entry for entry in entries if entry.startswith("- ") and len(entry.split()) > 26] == []


def test_the_citation_names_this_version() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == holdfast.__version__
    assert citation["license"] == "Apache-2.0"
