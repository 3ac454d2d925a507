"""The forms of netting side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.netting.forms import compare_forms
from settlement.netting.model import Edge
from tests.settlement.netting.graphs import drawn, edges


@pytest.mark.parametrize(
    ("story", "rows", "figures", "words"),
    [
        (
            "three in a circle, and one who owes one of them",
            [("10", "20", 100), ("20", "30", 100), ("30", "10", 200), ("40", "30", 100)],
            (500, 500, 100, 300),
            "",
        ),
        (
            "a star: the desk has clients on both sides",
            [("A", "desk", 100), ("desk", "B", 60), ("desk", "A", 30)],
            (190, 130, 70, 60),
            "desk on one side: a star",
        ),
        (
            "no star, and still no circle longer than a pair",
            [("A", "B", 10), ("B", "A", 4), ("B", "C", 5), ("C", "D", 5)],
            (24, 16, 6, 8),
            "no circle is longer than a pair",
        ),
        ("nothing", [], (0, 0, 0, 0), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_forms_by_example(
    story: str,
    rows: list[tuple[str, str, int]],
    figures: tuple[int, int, int, int],
    words: str,
) -> None:
    forms = compare_forms(edges(*rows))

    assert (forms.gross, forms.bilateral, forms.multilateral, forms.cleared) == figures
    assert words in forms.note
    assert bool(words) == bool(forms.note)


@given(
    st.builds(
        drawn,
        st.integers(0, 10**6),
        count=st.integers(1, 20),
        parties=st.integers(2, 6),
        amount_max=st.sampled_from([3, 10**20]),
    )
)
def test_each_wider_form_moves_no_more(owed: list[Edge]) -> None:
    forms = compare_forms(owed)

    assert forms.gross >= forms.bilateral >= forms.gross - forms.cleared >= forms.multilateral
