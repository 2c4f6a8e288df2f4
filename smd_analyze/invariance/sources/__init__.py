"""Where a model's graph comes from if no --model is given: descriptions that lie with the checkpoints.

Every source builds an nn.Module that computes what the described model computes, with the described names; tracing,
rules and the numeric check are then the same for all. One file per source, one line in the registry.
"""
