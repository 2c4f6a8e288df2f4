"""Writes the descriptions beside this file, one network through each library: python make.py (torch, onnx, onnxscript,
keras, tf_keras).

The network: a stem with a BatchNorm, a residual block whose first convolution has a bias and whose shortcut is a
convolution without a norm, a head.
"""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import nn

HERE = Path(__file__).parent
TRAINING = torch.onnx.TrainingMode.TRAINING


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.short, self.head = nn.Conv2d(4, 6, 1, bias=False), nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.head(torch.relu(y + self.short(x)).mean((2, 3)))


def network(layers, model, shape):
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(shape)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    y = layers.ReLU()(layers.BatchNormalization(name="bn1")(layers.Conv2D(6, 3, padding="same", name="conv1")(x)))
    y = layers.BatchNormalization(name="bn2")(layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv2")(y))
    y = layers.ReLU()(layers.Add()([y, layers.Conv2D(6, 1, use_bias=False, name="short")(x)]))
    return model(shape, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(y)))


def exported(model, name, **how):
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        path = None if how["dynamo"] else str(HERE / name)
        found = torch.onnx.export(model, (torch.zeros(1, 3, 8, 8),), path, **how)
        if found is not None:
            proto = found.model_proto
            for node in [*proto.graph.node, *proto.graph.input, *proto.graph.initializer]:
                for prop in list(node.metadata_props):  # paths of the machine that made it
                    node.metadata_props.remove(prop)
                node.doc_string = ""
            onnx.save(proto, HERE / name)


if __name__ == "__main__":
    import keras
    import tf_keras

    torch.manual_seed(0)
    exported(Net(), "torchscript.onnx", dynamo=False, training=TRAINING, do_constant_folding=False)
    exported(Net(), "dynamo.onnx", dynamo=True, training=TRAINING, optimize=False)
    exported(Net().eval(), "optimised.onnx", dynamo=True, optimize=True)
    for name, library in (("keras3", keras), ("keras2", tf_keras)):
        model = network(library.layers, library.Model, library.Input((8, 8, 3)))
        (HERE / f"{name}.json").write_text(json.dumps(json.loads(model.to_json())) + "\n")
