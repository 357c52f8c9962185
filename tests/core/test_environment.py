"""What ``doctor`` advises is how README installs this."""

import re
from pathlib import Path

import pytest

from sparse_transfer.core import environment

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_missing_comes_with_a_make_target_and_an_extra_that_exist() -> None:
    missing = environment.library("no-such-library", needed=False)
    assert (missing.state, missing.remedy) == ("missing", "make -B setup EXTRAS=no-such-library")
    broken = environment.library("no-such-library", needed=True)
    assert (broken.state, broken.remedy) == ("broken", "make -B setup")
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^setup:", makefile, re.MULTILINE)
    assert "-e '.[$(EXTRAS)]'" in makefile
    assert re.search(r"^clean:", makefile, re.MULTILINE)
    assert "make setup" in (ROOT / "README.md").read_text()


def test_every_optional_library_is_an_extra_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    monkeypatch.setattr(environment, "metadata", NothingInstalled)
    remedies = [finding.remedy for finding in environment.examine() if finding.detail == "optional"]
    asked = [remedy.rpartition("EXTRAS=")[2] for remedy in remedies if remedy]
    assert asked
    assert set(asked) <= set(extras)


def test_beside_an_installed_wheel_there_is_no_makefile_and_pip_brings_the_library_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.how_to_install("timm") == "make -B setup EXTRAS=timm"
    assert environment.CLONE == ROOT
    monkeypatch.setattr(environment, "CLONE", tmp_path)
    assert environment.how_to_install("timm") == "pip install timm"
    assert environment.library("no-such-library", needed=True).remedy == "pip install no-such-library"


class NothingInstalled:
    """``importlib.metadata`` on a bare machine."""

    class PackageNotFoundError(Exception):
        pass

    @classmethod
    def version(cls, name: str) -> str:
        raise cls.PackageNotFoundError(name)
