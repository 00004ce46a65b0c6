"""Plan, run loop, executors, the Zarr store, events: from an experiment to committed bits."""
