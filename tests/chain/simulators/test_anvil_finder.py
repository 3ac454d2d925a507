"""Where anvil is looked for."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from chain.simulators.anvil import PLATFORM_PACKAGES, find_anvil, start_anvil
from kernel.errors import BadInput, OutsideUnavailable

PACKAGE = PLATFORM_PACKAGES.get((platform.system(), platform.machine()), "")


def make_binary(path: Path, text: str = "#!/bin/sh\nexit 0\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def npm(tmp_path: Path) -> Path:
    if not PACKAGE:
        pytest.skip("no npm package for this platform")
    return make_binary(
        tmp_path / "npm" / "node_modules" / "@foundry-rs" / PACKAGE / "bin" / "anvil"
    )


def test_the_variable_wins_over_path_and_npm(tmp_path: Path, npm: Path) -> None:
    named = make_binary(tmp_path / "mine" / "my-anvil")
    on_path = make_binary(tmp_path / "bin" / "anvil")
    env = {"ANVIL": str(named), "PATH": str(on_path.parent)}

    assert find_anvil(env, [tmp_path / "npm"]) == named
    assert find_anvil({"PATH": str(on_path.parent)}, [tmp_path / "npm"]) == on_path
    assert find_anvil({}, [tmp_path, tmp_path / "npm"]) == npm
    assert find_anvil({}, [tmp_path]) is None


def test_a_variable_that_names_no_file_is_an_error_and_not_a_reason_to_look_elsewhere(
    tmp_path: Path, npm: Path
) -> None:
    with pytest.raises(BadInput, match="ANVIL names"):
        find_anvil({"ANVIL": str(tmp_path / "absent")}, [tmp_path / "npm"])


def test_an_unknown_platform_has_no_package(
    tmp_path: Path, npm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "sparc")

    assert find_anvil({}, [tmp_path / "npm"]) is None


async def test_a_binary_that_ends_at_once_is_reported_with_its_output(tmp_path: Path) -> None:
    broken = make_binary(tmp_path / "anvil", "#!/bin/sh\necho no such option\nexit 1\n")

    with pytest.raises(OutsideUnavailable, match="no such option"):
        async with start_anvil(broken):
            pytest.fail("it listened")
