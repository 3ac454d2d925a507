"""The compose file and the image fit the code: no container engine is needed to know that.

``compose-spec.schema.json`` is the Compose Specification's own schema (Apache-2.0,
github.com/compose-spec/compose-spec), taken from the distribution check-jsonschema 0.39.0.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import typer
import yaml
from sqlalchemy import make_url

from app.cli import app
from app.local.postgres_binaries import MAJOR_MAX, MAJOR_MIN
from chain.simulators.evm.model import DEFAULT_CHAIN_ID
from kernel.settings import Settings, describe
from venues.simulator.__main__ import parser as venue_parser

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.schema.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text()


EVERYWHERE = "0.0.0.0"  # noqa: S104  inside a container, whose ports are published on loopback


def option(command: list[str], name: str) -> str:
    """Return the value of ``--name VALUE`` or ``-name=VALUE`` on a command line."""
    for position, word in enumerate(command):
        if word == name:
            return command[position + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    raise AssertionError(f"{name} is not in {command}")


def container_port(service: str) -> int:
    [published] = SERVICES[service]["ports"]
    return int(published.rpartition(":")[2])


def test_the_file_follows_the_compose_specification() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(COMPOSE)

    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(
    "spoil",
    [
        {"services": {"postgres": {"image": 18}}},
        {"services": {"postgres": {"imagee": "postgres:18"}}},
        {"servicess": {}},
    ],
)
def test_a_file_that_does_not_follow_it_is_found(spoil: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(spoil)


def test_every_component_of_the_bridge_is_there() -> None:
    assert set(SERVICES) == {"postgres", "anvil", "bitcoind", "venue", "causeway"}


def test_every_named_volume_is_declared_and_used() -> None:
    used = {
        mount.partition(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
    }

    assert used == set(COMPOSE["volumes"])


def test_every_port_is_published_on_loopback_only_and_once() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_every_variable_is_one_that_the_code_reads() -> None:
    known = {variable for variable, _, _ in describe()}
    given = {name for name in SERVICES["causeway"]["environment"] if name.startswith("CAUSEWAY_")}
    in_image = set(re.findall(r"\b(CAUSEWAY_[A-Z_]+)=", DOCKERFILE))

    assert given - known == set()
    assert in_image - known == set()
    assert len(given) == len(SERVICES["causeway"]["environment"])


def test_the_settings_read_what_the_file_gives() -> None:
    settings = Settings.from_env(SERVICES["causeway"]["environment"])

    assert settings.log_json is True
    assert settings.state_dir == Path("/var/lib/causeway")


def test_the_database_url_is_the_one_that_postgres_is_set_up_for() -> None:
    environment = SERVICES["postgres"]["environment"]
    settings = Settings.from_env(SERVICES["causeway"]["environment"])
    assert settings.database_url is not None
    url = make_url(settings.database_url.reveal())

    assert url.drivername == "postgresql+asyncpg"
    assert (url.host, url.port) == ("postgres", container_port("postgres"))
    assert (url.username, url.password, url.database) == (
        environment["POSTGRES_USER"],
        environment["POSTGRES_PASSWORD"],
        environment["POSTGRES_DB"],
    )
    assert str(url.port) == option(SERVICES["postgres"]["healthcheck"]["test"], "--port")


def test_the_postgres_image_is_of_a_tested_major() -> None:
    major = int(SERVICES["postgres"]["image"].partition(":")[2].split(".")[0])

    assert MAJOR_MIN <= major <= MAJOR_MAX


@pytest.mark.parametrize(("variable", "service"), [("CAUSEWAY_EVM_URL", "anvil")])
def test_every_url_leads_to_a_service_that_listens_there(variable: str, service: str) -> None:
    url = urlsplit(SERVICES["causeway"]["environment"][variable])
    command = SERVICES[service]["command"]

    assert url.hostname == service
    assert url.port == int(option(command, "--port")) == container_port(service)
    assert option(command, "--host") == EVERYWHERE
    assert f"http://127.0.0.1:{url.port}" in " ".join(SERVICES[service]["healthcheck"]["test"])
    assert service in SERVICES["causeway"]["depends_on"]


def test_anvil_is_the_version_that_is_tested_and_the_chain_the_code_expects() -> None:
    tested = re.search(
        r"^VERSION=(\S+)$", (REPOSITORY / "scripts" / "fetch-anvil").read_text(), re.MULTILINE
    )
    assert tested is not None

    assert SERVICES["anvil"]["image"].rpartition(":")[2] == f"v{tested[1]}"
    assert int(option(SERVICES["anvil"]["command"], "--chain-id")) == DEFAULT_CHAIN_ID


def test_bitcoind_listens_where_it_is_asked_and_published() -> None:
    service = SERVICES["bitcoind"]

    for name in ("-rpcport", "-rpcuser", "-rpcpassword"):
        assert option(service["command"], name) == option(service["healthcheck"]["test"], name)
    assert int(option(service["command"], "-rpcport")) == container_port("bitcoind")
    assert "-regtest" in service["command"]


def test_the_venue_understands_its_command_line() -> None:
    command = SERVICES["venue"]["command"]
    assert command[:2] == ["simulate", "venue"]

    options = venue_parser().parse_args(command[2:])

    [mount] = SERVICES["venue"]["volumes"]
    assert options.data_dir.is_relative_to(mount.partition(":")[2])


def test_every_command_of_ours_exists() -> None:
    root = typer.main.get_command(app)
    ours = [service["command"] for service in SERVICES.values() if "build" in service]
    ours.append(json.loads(DOCKERFILE.rpartition("\nCMD ")[2]))

    for words in ours:
        command = root
        for word in words:
            if word.startswith("-") or not hasattr(command, "commands"):
                break
            assert word in command.commands, f"causeway {' '.join(words)}"
            command = command.commands[word]


def test_the_image_runs_as_an_ordinary_user_that_owns_its_state() -> None:
    user = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)

    assert [int(uid) for uid in user] == [10001]
    assert SERVICES["causeway"]["environment"]["CAUSEWAY_STATE_DIR"] in DOCKERFILE
    assert "user" not in SERVICES["venue"] | SERVICES["causeway"]


def test_the_image_installs_what_is_locked_and_nothing_for_development() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    syncs = re.findall(r"uv sync (.+)$", DOCKERFILE, re.MULTILINE)

    assert len(syncs) == 2
    for sync in syncs:
        assert "--frozen" in sync
        assert "--no-dev" in sync
        extras = re.findall(r"--extra (\w+)", sync)
        assert set(extras) <= set(project["optional-dependencies"])
    base = re.findall(r"^FROM python:([\d.]+)-slim", DOCKERFILE, re.MULTILINE)
    assert base == ["3.11", "3.11"], "the version that the tests run on"


def test_the_image_and_the_makefile_use_the_same_uv() -> None:
    bootstrap = (REPOSITORY / "scripts" / "bootstrap").read_text()
    version = re.search(r"^UV_VERSION=(\S+)$", bootstrap, re.MULTILINE)
    assert version is not None

    assert f"ghcr.io/astral-sh/uv:{version[1]} " in DOCKERFILE


def test_everything_the_wheel_is_built_from_is_sent_to_the_image() -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    ignore = (REPOSITORY / "deploy" / "Dockerfile.dockerignore").read_text().split()
    needed = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "uv.lock", "README.md"}

    assert ignore[0] == "*"
    assert {f"!{name}" for name in needed} - set(ignore) == set()
