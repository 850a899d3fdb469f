"""Memorization and influence from leave-out trials: arrays in, arrays out (numpy and scipy only).

Equations and sections without a name are those of Xu et al., *Towards the Memorization Effect of Neural Networks in
Adversarial Training*.

`sequential` gives intervals that hold after any number of trials, and `stopping` says when there are enough.
`subsets` draws each trial's training set, `estimate` gives memorization (Eq. 1), `influence` gives influence (Eq. 2),
`typicality` the typical and atypical sets, `exchange` Feldman & Zhang's file, `agreement` the cheaper scores.
"""
