"""The section ``[execution]`` of an experiment: how it is executed, which changes nothing of what is estimated."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from feldman.learner_sections import Section

__all__ = ["MAX_TRIALS", "ExecutionSection"]

MAX_TRIALS = 10_000_000

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

_OWN_FIELDS = {
    "CPU": "cpus_per_block",
    "GPU": "gpus_per_block",
    "memory": "memory_per_block",
    "object_store_memory": "memory_per_block",
}
"""Ray's own resources, and which field says how much of them a block takes."""


class ExecutionSection(Section):
    """``[execution]``: how it is executed. Changes nothing of what is estimated, so the fingerprint leaves it out.

    Executor, number of workers and attempts change no bit.
    Threads (``cpus_per_block``), compiled networks and hardware round floats in other orders.
    """

    executor: Literal["ray", "in-process"] = "ray"
    num_workers: int | None = Field(
        default=None, ge=1, le=100_000, description="Default: as many as there is room for, also when a cluster grows."
    )
    cpus_per_block: int = Field(default=1, ge=1, le=1024)
    gpus_per_block: float = Field(default=0.0, ge=0, le=1024)
    memory_per_block: str | None = Field(
        default=None, description="As '4 GiB': no more blocks are in flight than fit. Default: memory sets no bound."
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="A cluster's own resources that a block takes: {name: amount}."
    )
    shared_files: bool = Field(
        default=False,
        description="Workers of a cluster open memory-mapped data by its path, which every node must see.",
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    compile: bool = Field(
        default=False, description="Compile networks that are trained one after the other, once a worker."
    )
    checkpoint_path: str | None = Field(
        default=None,
        description="Folder that every worker reaches: networks that train one after the other are kept there on their way, and "
        "a block that is handed out again goes on from there.",
    )
    checkpoint_epochs: int = Field(default=1, ge=1, description="Epochs between two checkpoints of a trial.")
    max_attempts: int = Field(default=3, ge=1, le=100, description="A block that fails this often is set aside.")
    trials: tuple[int, int] | None = Field(
        default=None, description="[A, B]: train trials A to B - 1 alone, whole blocks of the plan. Default: all."
    )

    @model_validator(mode="after")
    def _checkpoints_somewhere(self) -> ExecutionSection:
        if self.checkpoint_path is None and self.checkpoint_epochs != 1:
            raise ValueError("checkpoint_epochs says nothing without checkpoint_path; take it out")
        return self

    @field_validator("gpus_per_block", mode="after")
    @classmethod
    def _gpus_as_ray_divides_them(cls, value: float) -> float:
        if value != (round(value, 4) if value < 1 else round(value)):
            raise ValueError(f"must be whole, or a share of one GPU in steps of 0.0001; found {value:g}")
        return value

    @property
    def memory_bytes_per_block(self) -> int:
        """`memory_per_block` in bytes, 0 if there is none."""
        return _num_bytes(self.memory_per_block) if self.memory_per_block is not None else 0

    @field_validator("memory_per_block", mode="after")
    @classmethod
    def _is_memory(cls, value: str | None) -> str | None:
        if value is not None:
            _num_bytes(value)
        return value

    @field_validator("resources", mode="after")
    @classmethod
    def _are_resources(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            if name in _OWN_FIELDS:
                raise ValueError(f"'{name}' has a field of its own: {_OWN_FIELDS[name]}")
            if not name.strip() or not 0 < amount <= 1e6 or (amount > 1 and amount != int(amount)):
                raise ValueError(
                    f"must be names and amounts, up to 1 or whole, as in {{spot = 1}}; found {name!r} = {amount!r}"
                )
        return value

    @field_validator("trials", mode="before")
    @classmethod
    def _first_and_end(cls, value: object) -> object:
        if value is None:
            return None
        if isinstance(value, list | tuple) and len(value) == 2 and all(type(bound) is int for bound in value):
            first, end = value
            if 0 <= first < end <= MAX_TRIALS:
                return first, end
        raise ValueError(f"must be [A, B], the trials A to B - 1, with 0 <= A < B <= {MAX_TRIALS}; found {value!r}")


def _num_bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?([KMGT]i?B)", text)
    num_bytes = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if num_bytes < 1:
        raise ValueError(f"must be a number with a unit ({', '.join(_UNITS)}), as in '4 GiB'; found {text!r}")
    return num_bytes
