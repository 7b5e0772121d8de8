"""Order statistics found by counts alone."""

from __future__ import annotations

import numpy as np
import pytest
from flip_nnunet.message import Json
from flip_nnunet.orders import EXTENTS, INTENSITIES, REALS, Column, Scale, count, keys, order_statistics, value
from hypothesis import given, settings
from hypothesis import strategies as st

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
floats64 = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.requirement("NNU-1")
@pytest.mark.parametrize(
    ("scale", "numbers"), [(EXTENTS, st.integers(0, 65535)), (INTENSITIES, floats32), (REALS, floats64)]
)
def test_the_order_statistics_of_split_data_are_those_of_the_pooled(scale: Scale, numbers: st.SearchStrategy[float]):
    kind = {16: np.int64, 32: np.float32, 64: np.float64}[scale.width]

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.lists(numbers, max_size=4), min_size=1, max_size=4).filter(any))
    def holds(split: list[list[float]]) -> None:
        sites = [np.array(part, kind) for part in split]
        pooled = np.sort(np.concatenate(sites))

        def ask(queries: dict[str, Json]) -> dict[str, np.ndarray]:
            return {name: sum(count(part, scale, query) for part in sites) for name, query in queries.items()}  # pyright: ignore[reportReturnType]

        found = order_statistics(ask, {"x": Column(scale, tuple(range(len(pooled))))})["x"]
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
            lambda queries: {name: count(np.arange(3), EXTENTS, query) for name, query in queries.items()},
            {"x": Column(EXTENTS, (3,))},
        )


@pytest.mark.requirement("NNU-1")
@pytest.mark.parametrize(
    ("scale", "numbers", "settled"),
    [(EXTENTS, st.integers(1, 65535), 0), (REALS, st.floats(1e-3, 1e4), 32)],
    ids=["extents", "spacings"],
)
def test_a_count_tells_of_a_value_no_more_than_a_sixteenth_of_its_distance_from_what_is_sought(
    scale: Scale, numbers: st.SearchStrategy[float], settled: int
):
    """Measured in keys, beyond the first, coarse bins; closer than `settled` bits a spacing is the sought one."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(numbers, min_size=10, max_size=30))
    def holds(values: list[float]) -> None:
        held = np.array(values)
        finest = dict.fromkeys(range(len(values)), scale.width)
        own = [int(key) for key in keys(held, scale.width)]

        def ask(queries: dict[str, Json]) -> dict[str, np.ndarray]:
            depth = queries["x"]["depth"]
            below = scale.below(depth)
            for number, key in enumerate(own):
                if key >> below + scale.digits[depth] in queries["x"]["prefixes"]:
                    finest[number] = below
            return {"x": count(held, scale, queries["x"])}

        found = order_statistics(ask, {"x": Column(scale, (len(values) // 2,))})["x"]
        [sought] = (int(key) for key in keys(np.array(list(found.values())), scale.width))
        for number, key in enumerate(own):
            distance = abs(key - sought)
            if distance >> settled and finest[number] < scale.below(0):
                assert distance < 16 << finest[number]

    holds()
