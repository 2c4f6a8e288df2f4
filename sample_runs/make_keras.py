"""A third small run on the same digits, trained and saved by Keras. Only making it needs Keras; reading does not.

pip install tensorflow-cpu keras && python sample_runs/make_keras.py
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import torch
from keras import layers
from training import TRAIN, TRUTH, batches, digits, saved_steps
from truth import Truth

FOLDER = Path(__file__).resolve().parent / "convnet_keras"
EPOCHS, BATCH = 120, 48
RATE, DROPPED, DROP = 0.05, 0.0125, 1340  # η, η after the drop, the last step of the high η
MOMENTUM, DECAY = 0.9, 0.04
APART = ("block1_conv1/kernel", "block2_conv2/kernel")


def convolution(x: keras.KerasTensor, filters: int, size: int, name: str, norm: str, stride: int = 1):
    """A bias-free convolution and the BatchNormalization of its output."""
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(epsilon=1e-5, name=norm)(x)


def convnet() -> keras.Model:
    """A BatchNorm ResNet for 8 × 8 images; its second block has a projection in the shortcut."""
    inputs = keras.Input((8, 8, 1))
    stem = layers.ReLU()(convolution(inputs, 8, 3, "conv", "bn"))
    x = layers.ReLU()(convolution(stem, 8, 3, "block1_conv1", "block1_bn1"))
    x = convolution(x, 8, 3, "block1_conv2", "block1_bn2")
    first = layers.ReLU()(layers.Add()([x, stem]))
    x = layers.ReLU()(convolution(first, 12, 3, "block2_conv1", "block2_bn1", 2))
    x = convolution(x, 12, 3, "block2_conv2", "block2_bn2")
    shortcut = convolution(first, 12, 1, "block2_project", "block2_project_bn", 2)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x)), name="convnet")


class OutputFirst:
    """The kernels of a Keras model as `Truth` wants them: torch tensors whose first axis is the output."""

    def __init__(self, model: keras.Model) -> None:
        self.variables = {v.path: v for v in model.trainable_variables}
        self.tensors = {name: torch.from_numpy(turned(v.numpy())) for name, v in self.variables.items()}

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """As of an nn.Module."""
        yield from self.tensors.items()

    def follow(self, gradients: list[tf.Tensor]) -> None:
        """Take over the model's present values, and the gradients of the last loss."""
        for (name, variable), gradient in zip(self.variables.items(), gradients, strict=True):
            self.tensors[name].copy_(torch.from_numpy(turned(variable.numpy())))
            self.tensors[name].grad = torch.from_numpy(turned(gradient.numpy()))


def turned(array: np.ndarray) -> np.ndarray:
    """The last axis first."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def main() -> int:
    """Train, save, and log the truth."""
    keras.utils.set_random_seed(3)
    tf.config.experimental.enable_op_determinism()
    start = time.perf_counter()
    images, labels = (t.numpy() for t in digits())
    pixels = (images.astype(np.float32)[..., None] - 4.9) / 6.0
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([DROP - 1], [RATE, DROPPED])
    optimizer = keras.optimizers.SGD(schedule, MOMENTUM, weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model = convnet()
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer, loss_of)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def train(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss, gradients

    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    steps = EPOCHS * (TRAIN // BATCH)
    mirror = OutputFirst(model)
    truth = Truth(mirror, steps, apart=APART, units={})  # pyright: ignore[reportArgumentType]

    def save(step: int) -> None:
        truth.checkpoint(step)
        model.save(FOLDER / f"step_{step:05d}.keras")

    wanted = saved_steps(steps, every=120, pairs=(480, 960, 1200, 1560, 1920, 2520, 3120, 3600))
    save(0)
    random = np.random.default_rng(3)
    shuffles = torch.Generator().manual_seed(3)
    for step, indices in enumerate(batches(BATCH, EPOCHS, shuffles), start=1):
        x = pixels[indices] + 0.8 * random.standard_normal((BATCH, 8, 8, 1), np.float32)
        wrong = random.random(BATCH) < 0.1
        y = np.where(wrong, random.integers(10, size=BATCH), labels[indices])
        rate = float(optimizer.learning_rate.numpy())
        loss, gradients = train(tf.constant(x), tf.one_hot(y, 10))
        mirror.follow(gradients)
        truth.record(step, rate, float(loss))
        if step in wanted:
            save(step)
    told = model.predict(pixels[TRAIN:], verbose=0).argmax(1)
    accuracy = float((told == labels[TRAIN:]).mean())
    truth.save(TRUTH / f"{FOLDER.name}.npz", weight_decay=DECAY, momentum=MOMENTUM, drop=DROP, accuracy=accuracy)
    took = time.perf_counter() - start
    print(f"{FOLDER.name}: {steps} steps, accuracy on {len(told)} other digits {accuracy:.3f}, {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
