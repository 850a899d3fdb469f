"""Adversarial examples in the l_inf ball: start, step, project and a per-example loss compose into PGD.

Images lie in [0, 1] and models normalize inside, so epsilon is in units of pixels (8/255). Empty on purpose: `pgd`
attacks, `losses` says what to ascend, `linf` holds the geometry, `frozen` keeps the model as it was.
"""
