"""The paper's own studies: training sets, statistics, claims and theory.  No torch, no ray."""
