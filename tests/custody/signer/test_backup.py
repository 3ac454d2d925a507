"""Where a seed comes from, and how people together get it back."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from itertools import combinations, count

import pytest
from shamir_mnemonic import combine_mnemonics  # type: ignore[import-untyped]  # it ships no types

from custody.signer import slip39
from custody.signer.entropy import DICE, HEX, check_brought, make_seed
from custody.signer.slip39 import check_of, combine, normalise, parse_scheme, read_share, split
from kernel.errors import BadInput, Refused

SEED = bytes(range(32))
FIVE = ["ann", "bob", "cat", "dan", "eve"]


def counting() -> Callable[[int], bytes]:
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


# SLIP-39.


def test_any_three_of_five_people_get_the_seed_back_and_no_two_do() -> None:
    shares = split(SEED, parse_scheme("3of5"), FIVE)

    assert [share.holder for share in shares] == FIVE
    assert {len(share.words.split()) for share in shares} == {slip39.WORDS}
    for size in range(5):
        for chosen in combinations(shares, size):
            words = [share.words for share in chosen]
            if size == 3:
                assert combine(words) == SEED
                continue
            with pytest.raises(BadInput, match="do not belong together"):
                combine(words)


def test_two_of_three_groups_get_the_seed_back() -> None:
    scheme = parse_scheme("2; board:2of3; office:3of4; vault:1of1")
    people = [f"p{number}" for number in range(8)]
    shares = split(SEED, scheme, people)
    words = {share.holder: share.words for share in shares}

    assert str(scheme) == "2; board:2of3; office:3of4; vault:1of1"
    assert [share.group for share in shares] == ["board"] * 3 + ["office"] * 4 + ["vault"]
    assert combine(words[name] for name in ("p0", "p2", "p7")) == SEED
    assert combine(words[name] for name in ("p3", "p4", "p6", "p1", "p0")) == SEED
    with pytest.raises(BadInput, match="do not belong together"):
        combine(words[name] for name in ("p3", "p4", "p6"))


def test_shares_that_would_not_give_the_seed_back_are_not_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[str] = []

    def lossy(words: list[str]) -> bytes:
        used.extend(words)
        found: bytes = combine_mnemonics(words)
        return found

    monkeypatch.setattr(slip39, "combine_mnemonics", lossy)
    shares = split(SEED, parse_scheme("2; board:2of3; office:3of5"), list("abcdefgh"))
    assert set(used) == {share.words for share in shares}

    monkeypatch.setattr(slip39, "combine_mnemonics", lambda _: bytes(32))
    with pytest.raises(Refused, match="do not give the seed back"):
        split(SEED, parse_scheme("3of5"), FIVE)


def test_shares_of_two_ceremonies_do_not_mix() -> None:
    first = split(SEED, parse_scheme("2of3"), FIVE[:3])
    second = split(SEED, parse_scheme("2of3"), FIVE[:3])

    with pytest.raises(BadInput, match="do not belong together"):
        combine([first[0].words, second[1].words])


def test_a_word_that_was_written_wrong_is_found_and_nothing_of_it_is_told() -> None:
    shares = split(SEED, parse_scheme("2of3"), FIVE[:3])
    words = shares[1].words.split()
    for wrong in (
        [*words[:9], "academic" if words[9] != "academic" else "acid", *words[10:]],
        [*words[:9], "canary", *words[10:]],
        [*words[:9], words[10], words[9], *words[11:]] if words[9] != words[10] else words[:-1],
        words[:-1],
    ):
        with pytest.raises(BadInput, match="share 2 is not spelled right") as caught:
            combine([shares[0].words, " ".join(wrong)])
        told = f"{caught.value!r} {caught.value} {caught.value.__cause__}"
        assert not set(told.split()) & set(words[4:])
        assert "canary" not in told


def test_a_share_is_known_again_by_its_check_and_shows_no_words() -> None:
    shares = split(SEED, parse_scheme("2of3"), FIVE[:3])
    ann = shares[0]

    assert check_of(f"  {ann.words.upper()}\n") == ann.check
    assert len({share.check for share in shares}) == 3
    assert repr(ann) == "PersonalShare('ann', 'holders', 1, …)"
    assert normalise("A\n b  C") == "a b c"
    assert read_share(ann.words).member_threshold == 2


@pytest.mark.parametrize(
    ("scheme", "says"),
    [
        ("1of1", "one person alone"),
        ("1of3", "copies of the same words"),
        ("1; a:1of1; b:2of2", "one person alone"),
        ("4of3", "4 of 3 shares"),
        ("2of17", "2 of 17 shares"),
        ("3; a:2of2; b:2of2", "3 of 2 groups"),
        ("0; a:2of2", "0 of 1 groups"),
        ("1; a:2of2; a:2of2", "two groups of one name"),
        ("three of five", "is not a scheme"),
        ("", "is not a scheme"),
        ("2; a=2of3", "is not a scheme"),
    ],
)
def test_a_scheme_that_protects_nothing_is_refused(scheme: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_scheme(scheme)


@pytest.mark.parametrize("holders", [FIVE[:2], [*FIVE[:2], "ann"], FIVE[:4]])
def test_each_share_has_a_person_of_its_own(holders: list[str]) -> None:
    with pytest.raises(BadInput, match="needs 3 different holders"):
        split(SEED, parse_scheme("2of3"), holders)


# Entropy.


def test_the_seed_depends_on_the_machine_and_on_the_dice() -> None:
    dice = "".join(random.Random(1).choices(DICE, k=100))
    others = dice[:-1] + ("1" if dice[-1] != "1" else "2")

    assert make_seed(counting()) != make_seed(counting(), dice)
    assert make_seed(counting(), dice) != make_seed(counting(), others)
    assert make_seed(secrets.token_bytes, dice) != make_seed(secrets.token_bytes, dice)
    assert make_seed(counting(), dice) == make_seed(counting(), f" {dice[:50]}\n{dice[50:]} ")
    assert len(make_seed(secrets.token_bytes)) == 32


@pytest.mark.parametrize("source", [bytes, lambda size: b"\7" * size, lambda _: b"\1\2"])
def test_a_broken_source_of_the_machine_makes_no_seed(source: Callable[[int], bytes]) -> None:
    with pytest.raises(Refused, match="repeats itself"):
        make_seed(source)


def test_honest_dice_and_honest_hexadecimal_are_taken() -> None:
    dealt = random.Random(39)
    for _ in range(200):
        check_brought("".join(dealt.choices(DICE, k=100)))
        check_brought("".join(dealt.choices(HEX, k=64)))


@pytest.mark.parametrize(
    ("brought", "says"),
    [
        pytest.param("".join(random.Random(1).choices(DICE, k=99)), "99 symbols", id="99 rolls"),
        pytest.param("".join(random.Random(1).choices(HEX, k=63)), "63 symbols", id="63 digits"),
        pytest.param("123456" * 20, "not random", id="counted"),
        pytest.param("6" * 100, "not random", id="sixes"),
        pytest.param("0123456789abcdef" * 4, "not random", id="the digits in order"),
        pytest.param("1234567890" * 10, "not random", id="typed from left to right"),
        pytest.param("".join(random.Random(2).choices("156", k=120)), "not random", id="3 faces"),
        pytest.param("".join(random.Random(3).choices(DICE, k=40)) * 3, "not random", id="copied"),
        pytest.param("correct horse battery staple" * 4, "neither rolls", id="a phrase"),
        pytest.param("1" * 5000, "more than 4096", id="too long"),
    ],
)
def test_what_is_not_random_is_refused_without_being_quoted(brought: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        make_seed(secrets.token_bytes, brought)
    assert brought[:10] not in str(caught.value)
