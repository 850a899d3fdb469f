"""Training methods, one file per row of the tables: a frozen dataclass of hyper-parameters and a loss.

Sections without a name are those of Xu et al., *Towards the Memorization Effect of Neural Networks in Adversarial
Training*; an equation without one is of the paper that its module names.
"""
