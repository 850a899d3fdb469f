"""Memorization and influence from leave-out trials: arrays in, arrays out (numpy and scipy only).

`subsets` draws each trial's training set, `estimate` gives memorization (Eq. 1), `influence` gives
influence (Eq. 2), `typicality` the typical and atypical sets, `exchange` Feldman & Zhang's file,
`agreement` the cheaper scores.
"""
