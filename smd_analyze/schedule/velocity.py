"""Whether a framework keeps the learning rate inside the velocity, so that a changed one acts only as old terms leave.

Inside, v' = αv − ηg, w' = w + v': Keras and tf.keras (keras/src/optimizers/sgd.py), Caffe (sgd_solver.cpp), MXNet
(sgd_mom_update), Chainer (momentum_sgd.py), scikit-learn (_stochastic_optimizers.py). Outside, v' = αv + g,
w' = w − ηv': PyTorch and trainers on it, optax, MLX, Paddle, MindSpore, TensorFlow 1's MomentumOptimizer.
"""

from __future__ import annotations

INSIDE = ("keras", "caffe", "mxnet", "chainer", "scikit-learn")
OUTSIDE = (
    "plain torch", "huggingface", "lightning", "fastai", "ultralytics", "stable-baselines3", "torch distributed",
    "deepspeed", "megatron", "flax", "equinox", "mlx", "paddle", "mindspore",
)  # fmt: skip
TENSORFLOW_1 = ("momentum", "momentumoptimizer")


def rate_in_velocity(framework: str, optimizer: str) -> bool | None:
    """True inside, False outside, None where the files do not tell. `optimizer` as the files write it."""
    if framework in INSIDE:
        return True
    if framework in OUTSIDE:
        return False
    word = optimizer.strip().rpartition(".")[2].lower()
    if framework == "tensorflow" and word:
        return word not in TENSORFLOW_1 if word in (*TENSORFLOW_1, "sgd") else None
    return None
