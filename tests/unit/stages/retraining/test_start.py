"""What a retraining begins with: the champion's weights where it mostly holds and warm starts have not failed, else fresh ones."""

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.model import RetrainingSpec, WarmStartSpec
from platform_assets.specs.records import WindowPerformance
from platform_assets.stages.retraining.start import Base, Try, choose_start

CHAMPION = Base("c" * 64, refused="")
SPEC = RetrainingSpec(warm_start=WarmStartSpec(epochs=0.5, most_loss=2.0, at_most=2))
HELPED, USELESS = Try(warm=True, outcome="helped", gain=0.1), Try(warm=True, outcome="did_not_help", gain=None)
FRESH = Try(warm=False, outcome="helped", gain=0.1)


def window(value, promised=0.9, metric="auroc"):
    return WindowPerformance(3, "2016-08-01", 10, 10, metric, value, promised, True, False, "")


def start(trigger="drift", newest=None, *, base=CHAMPION, tries=(), spec=SPEC):
    return choose_start(trigger, newest, base=base, tries=tries, spec=spec)


def test_a_champion_that_mostly_holds_is_begun_with():
    found = start(newest=window(0.85))
    assert (found.how, found.base) == ("warm_start", CHAMPION.training)
    assert found.why == "the champion's loss is 1.50 times the promised one, so its weights are a start: 50% of the epochs"
    assert start("schedule").how == "warm_start"


def test_what_speaks_against_it_is_said():
    whys = {
        "the champion's loss is 3.00 times the promised one, from 2 on its weights are no help": start(newest=window(0.7)),
        "no label says yet how much of the champion holds": start(),
        "what was erased must not live on in weights": start("erasure", window(0.9)),
        "there is no champion": start(newest=window(0.9), base=Base()),
        "the last one began with its champion's weights and won nothing": start(newest=window(0.9), tries=[USELESS]),
        "2 in a row began with their champions' weights, 2 may (retraining.warm_start.at_most)": start(
            newest=window(0.9), tries=[FRESH, HELPED, HELPED]
        ),
        "warm starts are switched off (retraining.warm_start)": start(newest=window(0.9), spec=RetrainingSpec(warm_start=None)),
    }
    assert {why: (found.why, found.how, found.base) for why, found in whys.items()} == {why: (why, "from_scratch", None) for why in whys}


def test_what_they_won_is_held_against_what_fresh_ones_won():
    weak = [Try(warm=True, outcome="helped", gain=0.01), FRESH, Try(warm=True, outcome="undecided", gain=0.01), FRESH]
    assert start(newest=window(0.9), tries=weak).why == "warm starts took 1.0% of the loss on the mean, fresh ones 10.0%"
    assert start(newest=window(0.9), tries=[HELPED, FRESH, HELPED, FRESH]).how == "warm_start"
    assert start(newest=window(0.9), tries=weak[:2]).how == "warm_start"  # one of each says nothing yet


def test_a_try_that_was_cut_off_says_nothing():
    cut = Try(warm=True, outcome="cut_off", gain=None)
    assert start(newest=window(0.9), tries=[FRESH, HELPED, cut, cut]).how == "warm_start"


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from(["auroc", "log_loss"]))
def test_the_more_is_lost_the_sooner_it_is_from_scratch(one, other, metric):
    worse, better = (max, min) if metric == "log_loss" else (min, max)
    answers = [start(newest=window(pick(one, other), 0.8, metric)).how for pick in (better, worse)]
    assert answers != ["from_scratch", "warm_start"]
