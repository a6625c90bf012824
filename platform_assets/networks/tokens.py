"""Texts to word pieces: a vocabulary learnt from the training rows, and the cut that the exported graph makes in the same way.

A text gets a space in front and is then cut from left to right, each time by the longest piece that fits; a sign that begins no piece is
unknown. A piece holds a space at its start alone, so no piece reaches over two words. Two forms of the one cut: `encode_texts` word by
word, `piece_pattern` as the regular expression of the graph's Tokenizer node; a property test holds them equal.
Pieces come from byte-pair merges (Sennrich et al., 2016); cut by the longest fit they do as well (Uzan et al., "Greed is All You Need",
2024).
"""

from __future__ import annotations

import heapq
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

PAD, UNKNOWN, FIRST = 0, 1, 2
VOCABULARY, MAX_TOKENS = 4000, 128
MAX_PIECE = 16  # signs
RARE = 20  # a sign or pair seen less often makes no piece, so that `unknown` is trained
MOST_WORDS = 200_000  # different words counted at once; beyond, the rarer half is forgotten
# RE2 gives up its automaton for a slow search, with a line on stderr each time, once a pattern is too large: it still took 10,400 nodes of
# Arabic and 13,300 of Latin pieces, not 14,900 and 15,600 (onnxruntime 1.31).
MOST_NODES = 10_000  # different beginnings of pieces, in bytes
_CHUNK = 1024  # rows cut at once


@dataclass(frozen=True)
class Tokeniser:
    """What was learnt: token 0 is padding, 1 is unknown, then these pieces in order; of each column `max_tokens` tokens are read."""

    columns: tuple[str, ...]
    pieces: tuple[str, ...]
    max_tokens: int

    @property
    def size(self) -> int:
        """Count of tokens."""
        return FIRST + len(self.pieces)

    @property
    def width(self) -> int:
        """Tokens of a row, over all text columns."""
        return self.max_tokens * len(self.columns)


class WordCounts:
    """Counts words as the shards go by; memory is bounded by MOST_WORDS."""

    def __init__(self, *, max_tokens: int = MAX_TOKENS) -> None:
        self._longest = max_tokens * MAX_PIECE
        self._counts: Counter[str] = Counter()
        self.rows = 0

    def add(self, column: pa.Array) -> None:
        """Count the words of one text column, as far as they are read."""
        self.rows += len(column)
        for start in range(0, len(column), _CHUNK):
            words = _words(column.slice(start, _CHUNK), longest=self._longest).flatten()
            counted = pc.value_counts(pc.utf8_slice_codeunits(words, 0, 4 * MAX_PIECE))
            self._counts.update({entry["values"]: entry["counts"] for entry in counted.to_pylist()})
            if len(self._counts) > MOST_WORDS:
                kept = sorted(self._counts.items(), key=lambda entry: (-entry[1], entry[0]))[: MOST_WORDS // 2]
                self._counts = Counter(dict(kept))

    def learn(self, columns: tuple[str, ...], *, vocabulary: int = VOCABULARY, max_tokens: int = MAX_TOKENS) -> Tokeniser:
        """Learn at most `vocabulary` pieces of what was counted; equal counts give equal pieces, in whatever order they came."""
        bar = min(RARE, 1 + self.rows // 100)
        return Tokeniser(columns, tuple(_learn(self._counts, vocabulary=vocabulary, bar=bar)), max_tokens)


def encode_texts(columns: Sequence[pa.Array], *, tokeniser: Tokeniser) -> NDArray[np.int32]:
    """Cut text columns into tokens, int32 [N, `tokeniser.width`]: first column first, each padded or cut to `max_tokens`."""
    cutter = _Cutter(tokeniser.pieces)
    parts = [_encode(column, cutter, length=tokeniser.max_tokens) for column in columns]
    return np.concatenate(parts, axis=1) if parts else np.empty((0, 0), np.int32)


def unknown_shares(column: pa.Array, *, tokeniser: Tokeniser) -> NDArray[np.float64]:
    """Say of each text what share of its tokens is unknown."""
    tokens = _encode(column, _Cutter(tokeniser.pieces), length=tokeniser.max_tokens)
    shares: NDArray[np.float64] = (tokens == UNKNOWN).sum(1) / np.maximum(1, (tokens != PAD).sum(1))
    return shares


def piece_pattern(pieces: Iterable[str]) -> str:
    """Write the pieces as an RE2 pattern that, matched leftmost-longest, cuts as `encode_texts` does: a tree, small enough for RE2."""
    root: dict[str, dict] = {}
    for piece in pieces:
        node = root
        for sign in piece:
            node = node.setdefault(sign, {})
        node[""] = {}
    return f"(?s:{_branches(root)}|.)" if root else "(?s:.)"


def _branches(node: dict[str, dict]) -> str:
    ways = [_plain(sign) + _branches(after) for sign, after in sorted(node.items()) if sign]
    if not ways:
        return ""
    return f"(?:{'|'.join(ways)}){'?' if '' in node else ''}"


def _plain(sign: str) -> str:
    return sign if sign.isascii() and sign.isalnum() else f"\\x{{{ord(sign):x}}}"


class _Cutter:
    """Cuts words, each different one once."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._ids = {piece: FIRST + place for place, piece in enumerate(pieces)}
        self._longest = max(map(len, pieces), default=1)
        self._known: dict[str, tuple[int, ...]] = {}

    def cut(self, word: str) -> tuple[int, ...]:
        """Give the tokens of a word, which had a space before it."""
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= MOST_WORDS:
                self._known.clear()
            found = self._known[word] = tuple(self._tokens(f" {word}"))
        return found

    def _tokens(self, text: str) -> Iterator[int]:
        start, ids = 0, self._ids
        while start < len(text):
            for end in range(min(len(text), start + self._longest), start, -1):
                token = ids.get(text[start:end])
                if token is not None:
                    break
            else:
                token, end = UNKNOWN, start + 1
            yield token
            start = end


def _words(column: pa.Array, *, longest: int) -> pa.ListArray:
    return pc.split_pattern(pc.utf8_slice_codeunits(pc.fill_null(column, ""), 0, longest), " ")


def _encode(column: pa.Array, cutter: _Cutter, *, length: int) -> NDArray[np.int32]:
    out = np.full((len(column), length), PAD, np.int32)
    for start in range(0, len(column), _CHUNK):
        # `length` tokens hold no more than this many signs, and no token looks further ahead.
        lists = _words(column.slice(start, _CHUNK), longest=length * MAX_PIECE)
        words = lists.flatten().dictionary_encode()
        cut = [cutter.cut(word) for word in words.dictionary.to_pylist()]
        sizes = np.array([len(tokens) for tokens in cut], np.int64)
        flat = np.array([token for tokens in cut for token in tokens], np.int32)
        begins = np.cumsum(sizes) - sizes
        which = words.indices.to_numpy()
        row = pc.list_parent_indices(lists).to_numpy()
        before = np.cumsum(sizes[which]) - sizes[which]
        place = before - before[lists.offsets.to_numpy()[:-1] - lists.offsets[0].as_py()][row]
        near = place < length
        which, row, place = which[near], row[near], place[near]
        count = sizes[which]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        at, tokens = np.repeat(place, count) + within, flat[np.repeat(begins[which], count) + within]
        fits = at < length
        out[start + np.repeat(row, count)[fits], at[fits]] = tokens[fits]
    return out


def _learn(words: Counter[str], *, vocabulary: int, bar: int) -> list[str]:
    """Begin with the signs, then join the commonest pair of neighbours again and again, within runs of one kind of sign."""
    tree = _Tree()
    pieces = [sign for sign in _signs(words, bar=bar)[: vocabulary // 2] if tree.take(sign)]
    runs: Counter[str] = Counter()
    for word, count in words.items():
        for run in _runs(f" {word}", known=set(pieces)):
            runs[run] += count
    pairs = _Pairs(runs)
    while len(pieces) < vocabulary and (best := pairs.pop()) is not None:
        (left, right), count = best
        if count < bar:
            break
        piece = left + right
        if len(piece) > MAX_PIECE or not tree.take(piece):
            continue
        if piece not in pieces:
            pieces.append(piece)
        pairs.join(left, right)
    return pieces


def _signs(words: Counter[str], *, bar: int) -> list[str]:
    """Give the signs that are not rare, and the space, the commonest first."""
    counts: Counter[str] = Counter({" ": bar})
    for word, count in words.items():
        for sign in f" {word}":
            counts[sign] += count
    return [sign for sign, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])) if count >= bar]


def _runs(word: str, *, known: set[str]) -> Iterator[str]:
    """Cut a word at unknown signs and where letters, digits and other signs meet; the space goes with what follows."""
    kinds = [_kind(sign) if sign in known else "" for sign in word]
    if kinds[0] and len(word) > 1 and kinds[1]:
        kinds[0] = kinds[1]
    place = 0
    for kind, group in groupby(kinds):
        size = len(list(group))
        if kind and size > 1:
            yield word[place : place + size]
        place += size


def _kind(sign: str) -> str:
    category = unicodedata.category(sign)[0]
    return "letters" if category in "LM" else "digits" if category == "N" else "others"


class _Tree:
    """Different beginnings of pieces, in bytes: what the pattern's automaton grows with."""

    def __init__(self) -> None:
        self._nodes: set[bytes] = set()

    def take(self, piece: str) -> bool:
        """Add a piece unless the tree would grow beyond MOST_NODES."""
        content = piece.encode()
        new = {content[:end] for end in range(1, len(content) + 1)} - self._nodes
        if len(self._nodes) + len(new) > MOST_NODES:
            return False
        self._nodes |= new
        return True


class _Pairs:
    """Neighbours in all runs, their counts kept as they are joined."""

    def __init__(self, runs: Counter[str]) -> None:
        ordered = sorted(runs.items())
        self._symbols = [list(run) for run, _ in ordered]
        self._times = [count for _, count in ordered]
        self._counts: Counter[tuple[str, str]] = Counter()
        self._where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for place, symbols in enumerate(self._symbols):
            self._add(place, symbols, sign=1)
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def pop(self) -> tuple[tuple[str, str], int] | None:
        """Take out the commonest pair; of equal ones the first in order."""
        while self._heap:
            count, pair = heapq.heappop(self._heap)
            now = self._counts.get(pair, 0)
            if now == -count:
                return pair, now
            if now:
                heapq.heappush(self._heap, (-now, pair))
        return None

    def join(self, left: str, right: str) -> None:
        """Make one symbol of every such pair."""
        touched: set[tuple[str, str]] = set()
        for place in list(self._where[left, right]):
            before = self._symbols[place]
            after: list[str] = []
            at = 0
            while at < len(before):
                if at + 1 < len(before) and before[at] == left and before[at + 1] == right:
                    after.append(left + right)
                    at += 2
                else:
                    after.append(before[at])
                    at += 1
            self._add(place, before, sign=-1)
            self._add(place, after, sign=1)
            self._symbols[place] = after
            touched |= set(pairwise(after))
        for pair in touched:
            heapq.heappush(self._heap, (-self._counts[pair], pair))

    def _add(self, place: int, symbols: list[str], *, sign: int) -> None:
        for pair in pairwise(symbols):
            self._counts[pair] += sign * self._times[place]
            if sign > 0:
                self._where[pair].add(place)
            else:
                self._where[pair].discard(place)
