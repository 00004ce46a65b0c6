"""What trials learn from: the `Dataset` record and the loaders that make one."""
