from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldman.experiment import ExecutionSection
from feldman.trials.ray_cluster import BlockResources, Node

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@given(st.integers(1, 10**6 - 1), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_memory_is_a_number_times_its_unit(number: int, unit: str, space: str) -> None:
    assert ExecutionSection(memory_per_block=f"{number}{space}{unit}").memory_bytes_per_block == number * UNITS[unit]
    assert ExecutionSection(memory_per_block=f"0.5{space}{unit}").memory_bytes_per_block == UNITS[unit] // 2


def test_without_a_bound_no_memory_is_asked_for() -> None:
    assert ExecutionSection().memory_bytes_per_block == 0
    assert BlockResources().amounts() == {"CPU": 1.0}


@given(
    st.integers(1, 8),
    st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0]),
    st.integers(0, 8),
    st.fixed_dictionaries({"CPU": st.integers(0, 64), "GPU": st.integers(0, 8), "memory": st.integers(0, 64)}),
)
def test_so_many_workers_fit_as_the_scarcest_resource_allows(
    cpus: int, gpus: float, memory: int, has: dict[str, int]
) -> None:
    total = {name: float(amount) for name, amount in has.items()}
    number = Node(id="a", name="a", total=total).num_fitting(BlockResources(cpus=cpus, gpus=gpus, memory_bytes=memory))
    taken = {"CPU": cpus, "GPU": gpus, "memory": memory}
    assert all(number * amount <= has[name] + 1e-4 for name, amount in taken.items())
    assert any((number + 1) * amount > has[name] + 1e-9 for name, amount in taken.items() if amount)


@pytest.mark.parametrize("custom", [{"spot": 1.0}, {"spot": 0.5, "lab": 2.0}])
def test_a_node_without_a_custom_resource_has_no_room(custom: dict[str, float]) -> None:
    resources = BlockResources(custom=custom)
    assert Node(id="a", name="a", total={"CPU": 8.0}).num_fitting(resources) == 0
    assert Node(id="a", name="a", total={"CPU": 8.0, "spot": 2.0, "lab": 4.0}).num_fitting(resources) == 2
