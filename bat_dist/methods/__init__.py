"""Training methods, one file per row of the tables: a frozen dataclass of hyper-parameters and a loss."""
