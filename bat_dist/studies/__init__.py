"""The computations of the paper's own studies: pure numpy and scipy."""
