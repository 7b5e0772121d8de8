"""Order statistics found by counts alone."""

from __future__ import annotations

import numpy as np
import pytest
from flip_nnunet.message import Json
from flip_nnunet.orders import Column, count, keys, order_statistics, value
from hypothesis import given, settings
from hypothesis import strategies as st

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
floats64 = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.requirement("NNU-1")
@pytest.mark.parametrize(("width", "numbers"), [(16, st.integers(0, 65535)), (32, floats32), (64, floats64)])
def test_the_order_statistics_of_split_data_are_those_of_the_pooled(width: int, numbers: st.SearchStrategy[float]):
    kind = {16: np.int64, 32: np.float32, 64: np.float64}[width]

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.lists(numbers, max_size=4), min_size=1, max_size=4).filter(any))
    def holds(split: list[list[float]]) -> None:
        sites = [np.array(part, kind) for part in split]
        pooled = np.sort(np.concatenate(sites))

        def ask(queries: dict[str, Json]) -> dict[str, np.ndarray]:
            return {name: sum(count(part, query) for part in sites) for name, query in queries.items()}  # pyright: ignore[reportReturnType]

        found = order_statistics(ask, {"x": Column(width, tuple(range(len(pooled))))})["x"]
        assert [found[rank] for rank in range(len(pooled))] == [float(number) for number in pooled]

    holds()


@settings(deadline=None)
@given(st.lists(floats64, min_size=2))
def test_keys_keep_the_order_and_give_the_value_back(numbers: list[float]):
    found = keys(np.array(numbers), 64)
    assert [numbers[i] for i in np.argsort(found, kind="stable")] == sorted(numbers)
    assert [value(int(key), 64) for key in found] == numbers


def test_a_rank_beyond_the_counted_values_is_an_error():
    with pytest.raises(ValueError, match="rank 3"):
        order_statistics(
            lambda queries: {name: count(np.arange(3), query) for name, query in queries.items()},
            {"x": Column(16, (3,))},
        )
