"""To and from the files of others: the authors' arrays and run folders, and what datamodels tools read."""
