"""Training on one rank: recipes, the loop, precision, correctness, a leave-out trial.  Never imports ray."""
