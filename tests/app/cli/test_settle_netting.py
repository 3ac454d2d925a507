"""``causeway settle net``: a file in, figures side by side and notices out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.app.cli.conftest import Cli

HEAD = "debtor,creditor,asset,amount,value_date"
CIRCLE = f"{HEAD}\na,b,USD,100,2026-01-05\nb,c,USD,100,2026-01-05\nc,a,USD,200,2026-01-05\n"
STAR = f"{HEAD}\na,desk,USD,100,2026-01-05\ndesk,b,USD,60.5,2026-01-05\n"


def test_the_forms_stand_side_by_side_and_notices_go_out_with_their_hash(
    cli: Cli, tmp_path: Path
) -> None:
    owed, out = tmp_path / "owed.csv", tmp_path / "notices.csv"
    owed.write_text(CIRCLE)

    answer = cli("settle", "net", str(owed), "--out", str(out), "--json")

    assert answer.code == 0, answer.err
    (usd,) = answer.json["assets"]
    assert [usd[form] for form in ("gross", "bilateral", "circles", "multilateral")] == [
        *("400", "400", "100", "100"),
    ]
    assert (usd["value_date"], usd["set_off"], usd["note"]) == ("2026-01-05", "300", "")
    assert answer.json["notices_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert len(out.read_text().splitlines()) == 4


def test_value_dates_are_cleared_apart_unless_all_are_asked_for_together(
    cli: Cli, tmp_path: Path
) -> None:
    owed = tmp_path / "owed.csv"
    owed.write_text(CIRCLE.replace("c,a,USD,200,2026-01-05", "c,a,USD,200,2026-01-06"))

    apart, whole = (cli("settle", "net", str(owed), *how, "--json") for how in ([], ["--together"]))

    told = [[(a["value_date"], a["set_off"]) for a in x.json["assets"]] for x in (apart, whole)]
    assert told == [[("2026-01-05", "0"), ("2026-01-06", "0")], [("any date", "300")]]


def test_a_star_is_told_that_circles_add_nothing(cli: Cli, tmp_path: Path) -> None:
    owed = tmp_path / "owed.csv"
    owed.write_text(STAR)

    answer = cli("settle", "net", str(owed))

    assert answer.code == 0
    assert "desk on one side: a star" in answer.out
    assert "160.5" in answer.out


def test_a_file_that_is_not_there_or_is_wrong_is_2(cli: Cli, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(f"{HEAD}\na,a,USD,1,2026-01-05\n")

    for path, words in ((tmp_path / "none.csv", "cannot be read"), (wrong, "line 2")):
        answer = cli("settle", "net", str(path))

        assert answer.code == 2
        assert words in answer.err
