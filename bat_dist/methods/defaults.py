"""Defaults of the methods that the command line needs before torch is loaded."""

ALPHA = 1.0  # of Eq. 7: 1 and 2 are the best of the paper's grid (Sec. 5.2)
BETA = 0.2  # of Eq. 10: the best of the paper's grid (Sec. 5.2)
