"""What a declared epsilon pays: held against Mironov's formula and another accountant, and counted through kills."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from platform_assets.errors import TrainingError
from platform_assets.networks.plans import PrivacyPlan
from platform_assets.networks.private.budget import Budget
from platform_assets.networks.private.journal import JOURNAL_FILE, Journal

HOTELS = Budget(PrivacyPlan(epsilon=3.0, delta=1e-6), sample_rate=512 / 40_000, planned_steps=624)


def integer_order(budget: Budget, order: int, steps: int) -> float:
    """Epsilon at one integer order: Mironov, Talwar and Zhang (2019), section 3.3, and the conversion of Canonne, Kamath and Steinke (2020)."""
    q, sigma, delta = budget.sample_rate, budget.noise_multiplier, budget.privacy.delta
    terms = [
        math.log(math.comb(order, k)) + k * math.log(q) + (order - k) * math.log1p(-q) + (k * k - k) / (2 * sigma**2)
        for k in range(order + 1)
    ]
    most = max(terms)
    renyi = steps * (most + math.log(sum(math.exp(term - most) for term in terms))) / (order - 1)
    return renyi + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def test_epsilon_is_what_the_formula_gives_at_whole_orders():
    accountant = RDPAccountant()
    accountant.history = [(HOTELS.noise_multiplier, HOTELS.sample_rate, HOTELS.planned_steps)]
    by_hand = min(integer_order(HOTELS, order, HOTELS.planned_steps) for order in range(2, 64))
    assert accountant.get_epsilon(delta=HOTELS.privacy.delta, alphas=list(range(2, 64))) == pytest.approx(by_hand, rel=1e-6)
    epsilon, order = HOTELS.spent(HOTELS.planned_steps)
    assert 0.97 * by_hand < epsilon <= by_hand  # orders between the whole ones are looked at, too
    assert 2 < order < 63  # the best one lies within those that are looked at


def test_the_bound_is_no_smaller_than_a_tight_accountants():
    tight = PRVAccountant()
    tight.history = [(HOTELS.noise_multiplier, HOTELS.sample_rate, HOTELS.planned_steps)]
    assert 0.5 * 3.0 < tight.get_epsilon(delta=1e-6, eps_error=0.05) <= HOTELS.spent(HOTELS.planned_steps)[0] + 0.05


@settings(max_examples=10)
@given(
    epsilon=st.floats(0.2, 20), delta=st.sampled_from([1e-8, 1e-6, 1e-4]), rate=st.floats(0.001, 1.0), steps=st.integers(1, 2000),
    more=st.integers(1, 500),
)  # fmt: skip
def test_the_noise_keeps_what_was_declared_and_every_step_costs(epsilon, delta, rate, steps, more):
    budget = Budget(PrivacyPlan(epsilon, delta), sample_rate=rate, planned_steps=steps)
    assert 0 < budget.spent(steps)[0] <= epsilon
    assert budget.spent(steps + more)[0] > budget.spent(steps)[0]
    assert budget.most_steps >= steps
    assert budget.spent(budget.most_steps)[0] <= epsilon
    assert budget.most_steps >= 2 * steps - 1 or budget.spent(budget.most_steps + 1)[0] > epsilon


def test_more_noise_is_asked_for_by_less_epsilon_and_by_more_of_the_rows():
    noise = [Budget(PrivacyPlan(epsilon, 1e-5), sample_rate=0.01, planned_steps=100).noise_multiplier for epsilon in (0.5, 1, 4)]
    assert noise == sorted(noise, reverse=True)
    noise = [Budget(PrivacyPlan(1.0, 1e-5), sample_rate=rate, planned_steps=100).noise_multiplier for rate in (0.01, 0.1, 1.0)]
    assert noise == sorted(noise)


def test_an_epsilon_that_no_noise_keeps_is_refused():
    with pytest.raises(TrainingError, match=r"no noise keeps epsilon 1e-09 at delta 1e-05.*raise epsilon, or lower"):
        _ = Budget(PrivacyPlan(1e-9, 1e-5), sample_rate=1.0, planned_steps=10**9).noise_multiplier


def test_a_guarantee_says_what_the_accountant_was_told():
    found = HOTELS.guarantee(600)
    assert found.epsilon == HOTELS.spent(600)[0] < 3.0
    assert "declared 3) at delta 1e-06 for one training row, after 600 of 624 steps: Rényi (opacus 1.6.0), order" in found.sentence
    assert HOTELS.guarantee(0).epsilon == 0


@settings(max_examples=12)
@given(blocks=st.integers(1, 9), turns=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=4))
def test_a_start_after_a_kill_never_counts_too_few(tmp_path_factory, blocks, turns):
    folder, taken, orderly = tmp_path_factory.mktemp("journal"), 0, 0
    for steps, settled in turns:
        journal = Journal(folder, block=blocks)
        assert taken <= journal.steps <= taken + orderly * blocks
        before = journal.steps
        for _ in range(steps):
            assert journal.begin(most=10_000)
        taken = journal.steps
        orderly = not settled
        if settled:
            journal.settle()
        assert taken == before + steps


def test_no_step_is_taken_past_the_last_that_is_paid(tmp_path):
    journal = Journal(tmp_path, block=4)
    assert [journal.begin(most=6) for _ in range(8)] == [True] * 6 + [False] * 2
    assert Journal(tmp_path, block=4).steps == 6


@pytest.mark.parametrize("text", ["", "{}", '{"steps": -1}', '{"steps": "7"}', "[]"])
def test_a_journal_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, text):
    (tmp_path / JOURNAL_FILE).write_text(text)
    with pytest.raises(TrainingError, match="private steps were taken"):
        Journal(tmp_path, block=4)
