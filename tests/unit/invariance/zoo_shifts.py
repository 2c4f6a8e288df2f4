"""What is added, and whether a mean subtraction behind it takes it away again."""

import torch
import torch.nn.functional as F
from torch import nn
from zoo_parts import (
    DEAD,
    JOINT_UNIT,
    NOT,
    UNIT,
    WHOLE,
    Net,
    entry,
    image,
    pooled,
    sequence,
    vector,
)


@entry
def padded_shift():  # T15: at the border fewer places carry the shift, so batch norm does not take it away
    def run(m, x):
        h = m.bn2(m.conv2(m.conv1(x)))
        return m.fc(pooled(F.relu(m.bn4(m.conv4(m.conv3(h))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 4, 3), conv2=nn.Conv2d(4, 4, 3, padding=1, bias=False), bn2=nn.BatchNorm2d(4),
        conv3=nn.Conv2d(4, 4, 3), conv4=nn.Conv2d(4, 6, 3, bias=False), bn4=nn.BatchNorm2d(6), fc=nn.Linear(6, 3),
    )  # fmt: skip
    expected = {"conv3.weight": WHOLE, "conv3.bias": DEAD, "conv2.weight": UNIT, "conv4.weight": UNIT}
    return net, image(), expected | {"conv1.weight": ("jointly invariant", "whole"), "fc.weight": NOT}


@entry
def constant_before_norm():  # too large, or not under a root: no eps
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.eps = 1e-6
            self.a, self.rms, self.b = nn.Linear(7, 8, bias=False), nn.RMSNorm(8), nn.Linear(8, 8, bias=False)
            self.c, self.out = nn.Linear(8, 6, bias=False), nn.Linear(6, 3)

        def forward(self, x):
            h = torch.tanh(self.rms(F.relu(self.a(x)) + 0.005))
            y = self.b(h)
            h = torch.tanh(y / torch.sqrt(y.square().mean(-1, keepdim=True) + 0.3))
            y = self.c(h)
            return self.out(y / torch.sqrt(y.square().mean(-1, keepdim=True) + self.eps))

    return Shifted(), vector(), {"a.weight": NOT, "b.weight": NOT, "c.weight": WHOLE}


@entry
def dropout_before_norm():  # a random mask does not leave the bias the same everywhere
    net = nn.Sequential(nn.Linear(7, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    return net, vector(batch=12), {"0.weight": JOINT_UNIT, "0.bias": JOINT_UNIT, "4.weight": NOT}


@entry
def centred_by_hand():  # a mean over channels leaves a bias, one over places takes it
    def run(m, x):
        h = m.a(x)
        h = torch.tanh(h - h.mean(-1, keepdim=True))
        h = m.b(h)
        return m.out(torch.tanh(h - h.mean(1, keepdim=True)))

    net = Net(run, a=nn.Linear(8, 6), b=nn.Linear(6, 6), out=nn.Linear(6, 3))
    return net, sequence(), {"a.weight": NOT, "a.bias": NOT, "b.weight": NOT, "b.bias": DEAD}
