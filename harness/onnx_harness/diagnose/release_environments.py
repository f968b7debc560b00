"""Virtual environments that hold one release of a package, kept in the cache.

Everything else comes from the environment under test, but for requirements of the release that it
lacks: they are installed beside the release.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from onnx_harness.errors import GateError, UsageError
from onnx_harness.gate.process import python_of
from onnx_harness.results.cache_root import cache_root

_LISTED = re.compile(r"^Available versions:\s*(.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MINUTES = 20
# The name says what is complete: environments of earlier versions lacked the requirements.
_READY = "ready_with_requirements"


def releases_of(package: str) -> list[str]:
    """Return the releases of a package in pip's index up to the installed one, oldest first.

    Raises:
        UsageError: it isn't installed, or pip knows no release of it.
    """
    if not _NAME.fullmatch(package):
        raise UsageError(f"'{package}' is no name of a package")
    try:
        installed = Version(version(package))
    except PackageNotFoundError:
        raise UsageError(
            f"{package} isn't installed here: there is no release of it that fails"
        ) from None
    ended = _pip(["index", "versions", package])
    match = _LISTED.search(ended.stdout)
    if ended.returncode != 0 or match is None:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"pip lists no releases of {package}: {said}")
    versions = {installed, *_versions(match[1])}
    return [str(release) for release in sorted(versions) if release <= installed]


def environment_of(package: str, release: str) -> Path:
    """Make the environment that has a release of a package, and return its folder.

    It may be in the cache already.

    Raises:
        GateError: the release, or a requirement that the environment under test lacks, can't be
            installed here.
    """
    folder = (
        cache_root() / "releases" / f"{package}-{release}-{sysconfig.get_python_version()}"
    )
    if (folder / _READY).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    finished = subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--clear", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise GateError(f"no environment can be made in {folder}: {finished.stderr.strip()}")
    _install(folder, f"{package}=={release}", f"{package} {release}")
    inside = next((folder / "lib").glob("python*")) / "site-packages"
    _install_requirements(folder, inside, f"{package} {release}")
    # After its own packages come those of the environment under test.
    site_folders = []
    for path in sys.path:
        if path.endswith(("site-packages", "dist-packages")):
            site_folders.append(path)
    paths = dict.fromkeys(site_folders)
    (inside / "environment_under_test.pth").write_text(
        "".join(f"{path}\n" for path in paths), encoding="utf-8"
    )
    (folder / _READY).write_text("", encoding="utf-8")
    return folder


def _install(folder: Path, requirement: str, what: str) -> None:
    """Install one requirement without its own ones.

    Raises:
        GateError: pip can't.
    """
    ended = _pip(
        [
            "--python",
            str(python_of(folder)),
            "install",
            "--no-deps",
            "--only-binary=:all:",
            requirement,
        ]
    )
    if ended.returncode != 0:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise GateError(f"pip can't install {what}: {said}")


def _install_requirements(folder: Path, inside: Path, release: str) -> None:
    """Install what a release requires and the environment under test doesn't have.

    A package that is there stays at its version, whatever the release asks for: only the release
    differs between environments.

    Args:
        folder: the environment.
        inside: its ``site-packages``.
        release: the package and its version, for an error.

    Raises:
        GateError: one can't be installed here.
    """
    tried: set[str] = set()
    while lacking := _lacking(inside) - tried:
        for spelling in sorted(lacking):
            _install(folder, spelling, f"{spelling}, which {release} requires")
        tried |= lacking


def _lacking(inside: Path) -> set[str]:
    """Return the requirements of the packages in a folder that are installed nowhere."""
    own = list(distributions(path=[str(inside)]))
    # Metadata that was left behind by a broken installation has no name.
    names = [package.name for package in [*own, *distributions()] if package.name]
    present = {canonicalize_name(name) for name in names}
    lacking = set()
    for package in own:
        for requirement in _requirements(package):
            if canonicalize_name(requirement.name) not in present:
                requirement.marker = None  # it applies here, as was looked up
                lacking.add(str(requirement))
    return lacking


def _requirements(package: Distribution) -> Iterator[Requirement]:
    """Yield the requirements of a package that apply here, without those of its extras."""
    for spelling in package.requires or ():
        try:
            requirement = Requirement(spelling)
        except InvalidRequirement:  # of an old release: pip has installed it all the same
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _pip(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
        env={**os.environ, "PIP_NO_INPUT": "1"},
    )


def _versions(listed: str) -> list[Version]:
    versions = []
    for word in listed.split(","):
        try:
            versions.append(Version(word.strip()))
        except InvalidVersion:
            continue
    return versions
