"""Texts are cut the same way here and in the exported graph, whatever is written; the vocabulary is bounded and does not depend on order."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from platform_assets.networks import tokens
from platform_assets.networks.export import _cut_texts
from platform_assets.networks.tokens import FIRST, MAX_PIECE, PAD, UNKNOWN, Tokeniser, WordCounts, encode_texts, piece_pattern
from tests.unit.networks.tiny import reviews

LENGTH = 12
ARABIC = "الغرفة نظيفة والموظفون لطيفون؟"
SIGNS = st.one_of(
    st.sampled_from(
        ["room", "the ", " ", "  ", "\n", "\t", "rude", "!", "نظيفة", "ة", "ً", "\x00", "\u200f", "😀", "é", "(?", "\\", "|", "4"]
    ),
    st.characters(exclude_categories=("Cs",)),
)
TEXT = st.lists(SIGNS, max_size=40).map("".join)


def learn(*texts, columns=("review",), **told):
    counts = WordCounts(max_tokens=told.get("max_tokens", LENGTH))
    counts.add(pa.array(texts))
    return counts.learn(columns, **{"max_tokens": LENGTH, **told})


@pytest.fixture(scope="module")
def learnt():
    tokeniser = learn(*reviews()["review"].to_pylist(), *[ARABIC] * 9, *["a(b|c) [d] é. 42 \\x {2}"] * 9, columns=("review", "title"))
    session = ort.InferenceSession(_cut_texts(tokeniser).SerializeToString(), providers=["CPUExecutionProvider"])
    return tokeniser, session


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
@example(rows=[("", "")])
@example(rows=[(" ", "  ")])
@example(rows=[("room " * 5000, "x" * 9000), (ARABIC * 50, "")])
def test_the_graph_cuts_every_text_as_the_training_does(learnt, rows):
    tokeniser, session = learnt
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(2)]
    ours = encode_texts(columns, tokeniser=tokeniser)
    theirs = session.run(None, {"text": np.array(rows, dtype=object).reshape(len(rows), 2)})[0]
    assert ours.shape == (len(rows), 2 * LENGTH)
    np.testing.assert_array_equal(ours, theirs)
    alone = encode_texts([column.slice(len(rows) - 1) for column in columns], tokeniser=tokeniser)
    np.testing.assert_array_equal(alone[0], ours[-1])


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_the_pieces_of_a_text_are_the_text(learnt, text):
    tokeniser = Tokeniser(("review",), learnt[0].pieces, 100)
    found = encode_texts([pa.array([text])], tokeniser=tokeniser)[0]
    said = "".join("?" if token == UNKNOWN else tokeniser.pieces[token - FIRST] for token in found if token != PAD)
    known = "".join(sign if sign in set(tokeniser.pieces) else "?" for sign in f" {text}")
    assert said == known or len(said) < len(known) == len(f" {text}")


def test_common_words_become_pieces_and_rare_signs_stay_unknown():
    tokeniser = learn(*["the room was quiet"] * 300, *["the room was rude"] * 300, "Ω the")
    assert {" room", " quiet", " the"} <= set(tokeniser.pieces)
    assert UNKNOWN in encode_texts([pa.array(["Ω"])], tokeniser=tokeniser)[0]
    assert tokens.unknown_shares(pa.array(["the room", "Ω", "ΩΩΩ"]), tokeniser=tokeniser).tolist() == [0.0, 0.5, 0.75]


def test_the_order_of_the_rows_and_the_cut_into_shards_change_nothing():
    texts = [text or "" for text in reviews()["review"].to_pylist()]
    whole, parts = WordCounts(), WordCounts()
    whole.add(pa.array(texts))
    for start in range(0, len(texts), 37):
        parts.add(pa.array(texts[::-1][start : start + 37]))
    assert whole.learn(("review",)) == parts.learn(("review",))


def test_no_more_words_are_held_than_the_bound(monkeypatch):
    monkeypatch.setattr(tokens, "MOST_WORDS", 100)
    counts = WordCounts()
    for start in range(0, 3000, 50):
        counts.add(pa.array([f"common w{number}" for number in range(start, start + 50)]))
        assert len(counts._counts) <= 100
    assert " common" in counts.learn(("review",)).pieces


def test_a_vocabulary_stays_within_what_the_graphs_automaton_takes(capfd):
    rng = np.random.default_rng(0)
    letters = list(map(chr, [*range(0x61, 0x7B), *range(0x627, 0x63B)]))
    words = ["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(3500)]
    tokeniser = learn(" ".join(words), vocabulary=10_000, max_tokens=30_000)
    assert 2000 < len(tokeniser.pieces) < 10_000
    assert len(set(tokeniser.pieces)) == len(tokeniser.pieces)
    assert max(map(len, tokeniser.pieces)) <= MAX_PIECE
    session = ort.InferenceSession(_cut_texts(Tokeniser(("review",), tokeniser.pieces, 500)).SerializeToString())
    session.run(None, {"text": np.array([[" ".join(words[:200])]], dtype=object)})
    assert "DFA out of memory" not in capfd.readouterr().err


def test_without_a_piece_every_sign_is_unknown():
    assert piece_pattern(()) == "(?s:.)"
