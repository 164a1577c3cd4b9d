"""When faulty sweeps stop a run."""

import pytest

from equilidar.data.faults import Fault, FaultBudget, TooManyFaultsError


def faults(*names: str) -> list[Fault]:
    return [Fault(name, f"{name}.bin is truncated") for name in names]


def test_few_faults_pass_and_are_named_once():
    budget = FaultBudget(max_fraction=0.01)
    assert budget.observe(4, faults("a")) == faults("a")
    assert budget.observe(300, []) == []
    assert budget.observe(4, faults("a", "b")) == faults("b")
    assert (budget.seen, budget.faulty) == (308, 3)
    assert "3 of 308" in budget.summary() and "a.bin is truncated" in budget.summary()


def test_early_faults_below_the_minimum_do_not_stop():
    budget = FaultBudget(max_fraction=0.01, min_faults=3)
    budget.observe(1, faults("a"))
    budget.observe(1, faults("b"))
    with pytest.raises(TooManyFaultsError, match=r"3 of 3 samples \(100\.00%\).*c\.bin is truncated"):
        budget.observe(1, faults("c"))


def test_stops_above_the_fraction_and_not_at_it():
    at = FaultBudget(max_fraction=0.05, min_faults=1)
    at.observe(100, faults(*"abcde"))
    with pytest.raises(TooManyFaultsError, match=r"faults.max_fraction"):
        at.observe(1, faults("f"))


def test_everything_may_be_faulty_if_the_user_says_so():
    budget = FaultBudget(max_fraction=1.0, min_faults=1)
    assert len(budget.observe(3, faults("a", "b", "c"))) == budget.faulty == 3


def test_long_lists_are_cut():
    budget = FaultBudget(max_fraction=1.0)
    budget.observe(9, faults(*"abcdefghi"))
    assert budget.summary(2).endswith("and 7 more")


def test_counts_survive_a_restart():
    first = FaultBudget()
    first.observe(500, faults("a", "b"))
    second = FaultBudget()
    second.load_state_dict(first.state_dict())
    assert second == first


@pytest.mark.parametrize("settings", [{"max_fraction": 1.5}, {"max_fraction": -0.1}, {"min_faults": 0}])
def test_settings_out_of_range(settings: dict):
    with pytest.raises(ValueError, match="faults"):
        FaultBudget(**settings)
