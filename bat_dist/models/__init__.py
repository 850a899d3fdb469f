"""Image classifiers with the normalization inside.

Empty on purpose: `names` checks a name without torch, `build` builds the network, `cost` says what it costs.
"""
