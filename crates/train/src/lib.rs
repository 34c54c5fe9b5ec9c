//! Training: the tape that makes any device differentiable, losses, optimisers, data, checkpoints.
