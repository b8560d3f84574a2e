"""The lock files agree with the requirements, cover what is installed, and name no server."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.server import ROOT

NAMES = ("requirements", "requirements-traces", "requirements-dev")


def pins(name: str) -> Iterator[Requirement]:
    """Yield the requirements of a file, also of those that it includes."""
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            yield from pins(line.removeprefix("-r "))
        elif line and not line.startswith(("#", " ")):
            yield Requirement(line.removesuffix("\\").strip())


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions in a lock file, which can be several for different platforms, by name of the package."""
    found: dict[str, set[str]] = {}
    for pin in pins(f"{name}.lock"):
        found.setdefault(canonicalize_name(pin.name), set()).add(str(pin.specifier))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_direct_requirement_is_exact_and_in_the_lock(name: str):
    versions = locked(name)
    for pin in pins(f"{name}.txt"):
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)), f"{pin} is not exact"
        assert versions.get(canonicalize_name(pin.name)) == {str(pin.specifier)}, f"{pin}: run `make lock`"


@pytest.mark.parametrize("name", NAMES)
def test_every_locked_package_has_hashes(name: str):
    entries = re.split(r"\n(?=\S)", (ROOT / f"{name}.lock").read_text().strip())
    assert len(entries) > 50
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_has_all_that_the_installed_packages_require(name: str):
    versions = locked(name)
    waiting = list(pins(f"{name}.txt"))
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        needed = waiting.pop()
        key = canonicalize_name(needed.name), frozenset(needed.extras)
        if key in seen:
            continue
        seen.add(key)
        assert key[0] in versions, f"{needed.name} is not in {name}.lock: run `make lock`"
        try:
            required = requires(needed.name) or []
        except PackageNotFoundError:  # for another platform
            continue
        extras = needed.extras or {""}
        for requirement in map(Requirement, required):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    assert len(seen) > 50


@pytest.mark.parametrize("name", NAMES[:-1])
def test_the_tests_run_with_the_versions_of_the_server(name: str):
    development = locked("requirements-dev")
    assert {
        package: versions for package, versions in locked(name).items() if development.get(package) != versions
    } == {}


@pytest.mark.parametrize("file", [f"{name}.{kind}" for name in NAMES for kind in ("txt", "lock")])
def test_no_file_names_a_server_or_a_folder(file: str):
    text = (ROOT / file).read_text()
    assert "://" not in text
    assert not re.search(r"^--?(index-url|extra-index-url|find-links|trusted-host|i|f)\b", text, re.MULTILINE)
    assert " @ " not in text
