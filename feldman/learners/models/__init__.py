"""Image classifiers by name, as torch modules."""
