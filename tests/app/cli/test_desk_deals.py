"""Deals through the command line: typed in, corrected, taken back, and out of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.cli.conftest import Cli

As = Callable[[str], tuple[str, ...]]
HEADER = "ref,party,side,amount,base,price,quote"
SALE = ("desk", "deal", "acme", "--sell", "2 ETH", "--price", "3000 USDT", "--ref", "d-1")


@pytest.mark.usefixtures("house")
def test_a_deal_is_booked_corrected_and_taken_back(cli: Cli, as_: As) -> None:
    rehearsed = cli(*SALE, *as_("dan"), "--dry-run", "--json")
    assert rehearsed.json["dry_run"] is True
    assert cli("desk", "deals", "--json").json == []

    booked = cli(*SALE, *as_("dan"), "--fee", "5 USDT", "--json").json
    assert (booked["state"], booked["fee"], booked["desk"]) == ("booked", "5 USDT", "otc")
    assert cli(*SALE, *as_("dan"), "--fee", "5 USDT", "--json").json["id"] == booked["id"]
    other = cli(*SALE, *as_("dan"), "--no-fee")
    assert other.code == 1
    assert "another fee" in other.err

    correction = ("--ref", "d-1b", "--amount", "3 ETH", "--no-fee", "--reason", "misheard")
    amended = cli("desk", "amend", booked["id"], *correction, *as_("dan"), "--json").json
    assert (amended["amount"], amended["fee"], amended["price"]) == (
        *("3 ETH", "0 USDT", booked["price"]),
    )
    gone = cli("desk", "cancel", amended["id"], "--reason", "off", *as_("dan"), "--json").json
    assert gone["state"] == "cancelled"
    states = {item["reference"]: item["state"] for item in cli("desk", "deals", "--json").json}
    assert states == {"d-1": "amended", "d-1b": "cancelled"}


@pytest.mark.usefixtures("house")
def test_a_transfer_takes_a_treasurer_and_leaves_treasury_the_other_way_round(
    cli: Cli, as_: As
) -> None:
    transfer = (
        *("desk", "deal", "treasury", "--purpose", "transfer"),
        *("--buy", "1 ETH", "--price", "3000 USDT", "--ref", "t-1"),
    )

    assert cli(*transfer, *as_("dan")).code == 1
    booked = cli(*transfer, *as_("ada"), "--json").json
    assert booked["purpose"] == "transfer"
    for correction in (
        ("amend", booked["id"], "--ref", "t-2", "--amount", "2 ETH"),
        ("cancel", booked["id"]),
    ):
        refused = cli("desk", *correction, "--reason", "mine", *as_("dan"))
        assert refused.code == 1
        assert "is not treasurer" in refused.err
    rows = cli("desk", "position", "--desk", "treasury", "--json").json
    assert {row["asset"]: row["position"] for row in rows} == {
        "ETH": "-1 ETH",
        "USDT": "3,000 USDT",
    }


@pytest.mark.usefixtures("house")
def test_a_file_is_booked_line_by_line_and_once(cli: Cli, as_: As, tmp_path: Path) -> None:
    file = tmp_path / "deals.csv"
    lines = ("d-1,acme,sell,2,ETH,3000,USDT", "d-2,nobody,buy,1,ETH,3000,USDT")
    file.write_text("\n".join((HEADER, *lines)))
    load = ("desk", "import", str(file), *as_("dan"))

    rehearsed = cli(*load, "--dry-run", "--json")
    assert cli("desk", "deals", "--json").json == []
    first, again = cli(*load, "--json"), cli(*load, "--json")

    assert [answer.code for answer in (rehearsed, first, again)] == [1, 1, 1]
    assert [item["outcome"] for item in first.json] == ["booked", "refused"]
    assert [item["outcome"] for item in again.json] == ["known", "refused"]
    assert "'nobody'" in first.json[1]["detail"]

    file.write_text(f"{HEADER},purpose\nt-9,treasury,buy,2,ETH,3000,USDT,transfer")
    assert cli(*load, "--json").json[0]["outcome"] == "refused"
    by_treasurer = ("desk", "import", str(file), *as_("ada"), "--json")
    assert cli(*by_treasurer).json[0]["outcome"] == "booked"

    file.write_text(f"{HEADER}\nd-9,acme,sell,two,ETH,3000,USDT")
    faulty = cli(*load)
    assert faulty.code == 2
    assert "deals.csv:2 amount" in faulty.err
    file.unlink()
    assert cli(*load).code == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ("--fee", "5 ETH"),
        ("--fee", "5 USDT", "--no-fee"),
        ("--purpose", "gift"),
        ("--buy", "2 ETH"),
        ("--agreed-at", "noon"),
    ],
)
def test_a_deal_that_means_nothing_is_2(wrong: tuple[str, ...], cli: Cli, as_: As) -> None:
    answer = cli(*SALE, *as_("dan"), *wrong)

    assert answer.code == 2
    assert answer.err.startswith("error: ")
