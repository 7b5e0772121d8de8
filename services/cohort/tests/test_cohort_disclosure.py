"""No released set of numbers determines a group of fewer persons than the threshold."""

from collections import defaultdict
from itertools import permutations, product

import pytest
from flip_cohort.disclosure import OTHERS, THRESHOLD, Release, Rules, _release, age_band, count, differs_by_few, release
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.requirement("COHORT-6")

RULES = Rules(secret=b"a Trust's own secret")
NOBODY = frozenset[int]()
RANKS = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))


def table(counts: dict[str, int]) -> dict[str, frozenset[int]]:
    """Persons by category, each in one."""
    first, parts = 0, {}
    for category, persons in counts.items():
        parts[category] = frozenset(range(first, first + persons))
        first += persons
    return {category: who for category, who in parts.items() if who}


def everyone(parts: dict[str, frozenset[int]]) -> frozenset[int]:
    return NOBODY.union(*parts.values())


def told(counts: dict[str, int]) -> Release:
    parts = table(counts)
    return release(everyone(parts), {"d": parts}, RULES)


def test_a_total_below_the_threshold_is_suppressed_and_looks_like_none():
    assert told({"F": 9}) == told({}) == Release("suppressed", {})


def test_a_small_category_takes_one_of_the_two_smallest_others_along():
    shown = told({"F": 100, "M": 40, "N": 50, "U": 3}).distributions["d"]
    assert shown in ({"F": 100, "M": 40, OTHERS: 55}, {"F": 100, "N": 50, OTHERS: 45})


def test_small_categories_that_are_enough_together_take_none_along():
    assert told({"F": 100, "M": 40, "U": 6, "V": 7}).distributions["d"] == {"F": 100, "M": 40, OTHERS: 15}


def test_numbers_are_rounded_but_never_below_the_threshold():
    assert told({"F": 103, "M": 12}) == Release(115, {"d": {"F": 105, "M": 10}})
    assert count(12, Rules(secret=RULES.secret, threshold=12)) == 12
    assert count(9, RULES) == count(0, RULES) == "suppressed"


def test_the_same_persons_give_the_same_answer_every_time():
    assert told({"F": 40, "M": 40, "U": 3}) == told({"F": 40, "M": 40, "U": 3})


def test_a_trust_may_be_more_careful_never_less():
    assert Rules(secret=RULES.secret, threshold=25, rounding=10).threshold == 25
    with pytest.raises(ValueError, match="at least 10"):
        Rules(secret=RULES.secret, threshold=9)
    with pytest.raises(ValueError, match="at least 5"):
        Rules(secret=RULES.secret, rounding=4)
    with pytest.raises(ValueError, match="secret"):
        Rules(secret=b"")


def test_persons_in_two_categories_do_not_tell_how_few_are_in_one_only():
    """98 of 100 have A: the number of A beside the total would tell of the two who haven't."""
    a, b = frozenset(range(98)), frozenset(range(3, 100))
    assert release(a | b, {"d": {"A": a, "B": b}}, RULES).distributions["d"] == {OTHERS: 100}


def test_a_group_of_two_categories_as_full_as_unnamed_ones_can_be_is_not_named():
    """20 rounded persons in two categories of at most nine each could only be nine and nine."""
    fine = table({"a": 40, "b": 30, "c": 9, "d": 9})
    coarse = {"ab": fine["a"] | fine["b"], "cd": fine["c"] | fine["d"]}
    shown = release(everyone(fine), {"fine": fine, "coarse": coarse}, RULES)
    assert shown.distributions["coarse"] == {OTHERS: 90}
    looser = table({"a": 40, "b": 30, "c": 4, "d": 8})
    coarse["cd"] = looser["c"] | looser["d"]
    shown = release(everyone(looser), {"fine": looser, "coarse": coarse}, RULES)
    assert shown.distributions == {"coarse": {"ab": 70, "cd": 10}, "fine": {"a": 40, "b": 30, OTHERS: 10}}


Table = tuple[int, ...]


def pinned(possible: dict[str, set[Table]], threshold: int, most: int) -> list[tuple[str, set[Table]]]:
    """Releases that leave a small category one size only, among the tables that may lie behind them.

    Releases that a table larger than those tried could also have led to are left out.
    """
    return [
        (release_, tables)
        for release_, tables in possible.items()
        if max(map(max, tables)) < most
        and any(len(set(sizes)) == 1 and 0 < sizes[0] < threshold for sizes in zip(*tables, strict=True))
    ]


@pytest.mark.parametrize(("threshold", "most", "names"), [(3, 7, "abc"), (4, 8, "abc"), (3, 4, "abcd")])
def test_one_who_knows_all_but_the_secret_pins_down_no_small_category(threshold: int, most: int, names: str):
    """Every table, small and whole: those with the same release are what an attacker is left with."""
    secrets: list[dict[str, int]] = [dict(zip(names, ranks, strict=True)) for ranks in permutations(range(len(names)))]
    possible: dict[str, set[Table]] = defaultdict(set)
    for sizes in product(range(most + 1), repeat=len(names)):
        parts = table(dict(zip(names, sizes, strict=True)))
        for secret in secrets:
            shown = _release(everyone(parts), {"d": parts}, threshold, 2, secret.__getitem__)
            possible[repr(shown)].add(sizes)
    assert not pinned(possible, threshold, most)


def test_a_coarser_column_beside_a_finer_one_pins_down_no_small_category():
    """a and b are one category of the coarser column, c and d the other."""
    threshold, most, names = 3, 4, "abcd"
    secrets: list[dict[str, int]] = [dict(zip((*names, "ab", "cd"), (*r, 0, 1), strict=True)) for r in RANKS]
    secrets += [{**secret, "ab": 1, "cd": 0} for secret in secrets]
    possible: dict[str, set[Table]] = defaultdict(set)
    for sizes in product(range(most + 1), repeat=4):
        fine = table(dict(zip(names, sizes, strict=True)))
        coarse = {pair: fine.get(pair[0], NOBODY) | fine.get(pair[1], NOBODY) for pair in ("ab", "cd")}
        both = {"fine": fine, "coarse": {pair: who for pair, who in coarse.items() if who}}
        for secret in secrets:
            possible[repr(_release(everyone(fine), both, threshold, 2, secret.__getitem__))].add(sizes)
    assert not pinned(possible, threshold, most)


persons = st.frozensets(st.integers(0, 79), max_size=80)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[frozenset[int], dict[str, dict[str, frozenset[int]]]]:
    """Up to 80 persons in up to three distributions, some of them in several categories of one."""
    who = draw(persons)
    distributions: dict[str, dict[str, frozenset[int]]] = {}
    for name in draw(st.sets(st.sampled_from("xyz"))):
        parts = {c: draw(persons) & who for c in draw(st.sets(st.sampled_from("abcde"), min_size=1))}
        parts["rest"] = who - NOBODY.union(*parts.values())
        distributions[name] = {category: members for category, members in parts.items() if members}
    return who, distributions


@given(cohorts())
def test_every_number_stands_for_at_least_the_threshold(
    cohort: tuple[frozenset[int], dict[str, dict[str, frozenset[int]]]],
):
    shown = release(*cohort, RULES)
    numbers = [shown.persons, *(n for parts in shown.distributions.values() for n in parts.values())]
    assert all(n >= THRESHOLD if isinstance(n, int) else n == "suppressed" for n in numbers)


@given(cohorts())
def test_no_named_groups_inside_another_leave_a_few_over(
    cohort: tuple[frozenset[int], dict[str, dict[str, frozenset[int]]]],
):
    who, distributions = cohort
    shown = release(who, distributions, RULES)
    named = {
        name: [distributions[name][category] for category in parts if category != OTHERS]
        for name, parts in shown.distributions.items()
    }
    groups = [who, *(group for parts in named.values() for group in parts)]
    for group in groups:
        for parts in named.values():
            inside = [part for part in parts if part < group]
            assert all(len(group - part) >= THRESHOLD for part in inside)
            if inside:
                left = len(group - NOBODY.union(*inside))
                assert left == 0 or left >= THRESHOLD


@given(persons, persons)
def test_two_queries_a_few_persons_apart_are_told_from_two_far_apart_or_equal(
    one: frozenset[int], other: frozenset[int]
):
    apart = len(one ^ other)
    assert differs_by_few(one, other, RULES) == (1 <= apart < THRESHOLD)


@given(st.integers(-5, 130))
def test_an_age_is_in_the_band_that_names_it(age: int):
    band = age_band(age)
    first = int(band.rstrip("+").split("-")[0])
    assert first <= max(age, 0) < (first + 10 if band != "90+" else 200)
