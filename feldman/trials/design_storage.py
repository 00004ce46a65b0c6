"""The design of a study in its store: one array of bits, and attributes that say what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from feldman.errors import CorruptStoreError
from feldman.trials.design import Design
from feldman.trials.locations import Location
from feldman.trials.storage import storage_errors

__all__ = ["read_design", "write_design"]

_ARRAY = "design_kept"


def write_design(group: zarr.Group, design: Design) -> None:
    """Write ``design_kept``, bool [level, train], and the attribute ``design`` into a group that is being built."""
    kept = np.array([design.kept(level) for level in range(len(design.levels))])
    array = group.create_array(
        _ARRAY,
        shape=kept.shape,
        chunks=kept.shape,
        dtype="bool",
        compressors=[BloscCodec(cname="zstd", shuffle="bitshuffle", typesize=1), Crc32cCodec()],
        dimension_names=("level", "train"),
        config={"write_empty_chunks": True},
    )
    array[:] = kept
    group.update_attributes({"subset_plan": "designed", "design": design.attributes()})


def read_design(group: zarr.Group, path: Location, fingerprint: str) -> Design:
    """Read the design that has this fingerprint.

    Raises
    ------
    CorruptStoreError
        If it is missing, damaged or another one.
    """
    try:
        with storage_errors(path):
            array = group[_ARRAY]
            kept: Any = np.asarray(array[:]) if isinstance(array, zarr.Array) else None
        design = Design.from_store(group.attrs.asdict().get("design"), kept)
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise CorruptStoreError(f"{path} is damaged: its array {_ARRAY} cannot be read ({error})") from None
    if design.fingerprint != fingerprint:
        raise CorruptStoreError(
            f"{path} is damaged: its array {_ARRAY} is of another design ({design.fingerprint[:12]}) than its experiment "
            f"({fingerprint[:12]})"
        )
    return design
