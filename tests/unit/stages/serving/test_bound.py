"""Runs through bound buffers say what runs through arrays say, in any order of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.main_job.bench.serving_setup import MODEL, WIDTH, values, write_release
from platform_assets.sealing.release import Opener
from platform_assets.stages.serving.bound import MAX_BOUND_ROWS
from platform_assets.stages.serving.bundle import Bundle, load_bundle
from platform_assets.stages.serving.columns import Encoded
from resources.settings import Home
from resources.testing.keys import open_releases


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("releases")
    write_release(root / "one", seed=1, hidden=8)
    home = Home(root / "home")
    digest = open_releases(home).put(root / "one")
    return load_bundle(home.releases / digest, model=MODEL, digest=digest, opener=Opener.of(home.keys))


@given(st.lists(st.tuples(st.integers(1, MAX_BOUND_ROWS + 2), st.integers(0, 9)), min_size=2, max_size=6))
def test_bound_runs_answer_as_runs_through_arrays_do(bundle, asked):
    given_rows = [values(seed, rows) for rows, seed in asked]
    found = [bundle.answer(Encoded(len(rows), rows.tobytes())) for rows in given_rows]
    for rows, answer in zip(given_rows, found, strict=True):  # after all runs: an answer is not written over by the next one
        np.testing.assert_allclose(answer, bundle.predict(Encoded(len(rows), rows)), atol=1e-6)


def test_an_unloaded_release_answers_again_once_it_is_revived(bundle):
    packed = Encoded(1, values(3, 1).tobytes())
    before = bundle.answer(packed)
    bundle.unload()
    assert bundle.session is bundle.bound is None
    bundle.revive()
    np.testing.assert_array_equal(bundle.answer(packed), before)
    assert bundle.bound is not None
    assert bundle.answer(packed).shape == (1, 2)
    assert len(packed.numbers) == 4 * WIDTH
