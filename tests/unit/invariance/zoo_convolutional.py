"""Convolutional networks of the zoo."""

import torch
import torch.nn.functional as F
from torch import nn
from zoo_parts import (
    BLOCK,
    DEAD,
    JOINT_BLOCK,
    JOINT_UNIT,
    JOINT_WHOLE,
    NOT,
    UNIT,
    WHOLE,
    Net,
    entry,
    image,
    pooled,
)


@entry
def conv_bias_batch_norm():  # T1
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"0.weight": UNIT, "0.bias": DEAD, "4.weight": UNIT, "4.bias": DEAD, "9.weight": NOT}


@entry
def residual_post_norm():
    def run(m, x):
        h = F.relu(m.bn1(m.conv1(x)))
        y = m.bn3(m.conv3(F.relu(m.bn2(m.conv2(h)))))
        return m.fc(pooled(F.relu(y + m.shortcut(h))))

    net = Net(
        run, conv1=nn.Conv2d(3, 6, 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(6),
        conv2=nn.Conv2d(6, 8, 3, 2, 1, bias=False), bn2=nn.BatchNorm2d(8),
        conv3=nn.Conv2d(8, 8, 3, 1, 1, bias=False), bn3=nn.BatchNorm2d(8),
        shortcut=nn.Sequential(nn.Conv2d(6, 8, 1, 2, bias=False), nn.BatchNorm2d(8)), fc=nn.Linear(8, 5),
    )  # fmt: skip
    invariant = {f"{c}.weight": UNIT for c in ("conv1", "conv2", "conv3", "shortcut.0")}
    return net, image(), invariant | {"fc.weight": NOT, "bn1.weight": JOINT_WHOLE, "bn3.weight": NOT}


@entry
def residual_pre_activation():  # T3
    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, stride, 1, bias=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.shortcut = nn.Conv2d(i, o, 1, stride, bias=False) if i != o or stride != 1 else None

        def forward(self, x):
            h = F.relu(self.bn1(x))
            side = x if self.shortcut is None else self.shortcut(h)
            return self.conv2(F.relu(self.bn2(self.conv1(h)))) + side

    def run(m, x):
        return m.fc(pooled(F.relu(m.bn(m.blocks(m.conv1(x))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 6, 3, 1, 1, bias=False), blocks=nn.Sequential(Block(6, 6, 1), Block(6, 8, 2)),
        bn=nn.BatchNorm2d(8), fc=nn.Linear(8, 5),
    )  # fmt: skip
    expected = {f"blocks.{i}.conv1.weight": UNIT for i in (0, 1)} | {"fc.weight": NOT}
    writers = ("conv1", "blocks.0.conv2", "blocks.1.conv2", "blocks.1.shortcut")  # to the two streams
    return net, image(), expected | {f"{n}.weight": JOINT_UNIT for n in writers}


@entry
def frozen_batch_norm():  # T4
    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    def run(m, x):
        return m.fc(pooled(F.relu(m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x))))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 5, 3, bias=False), bn1=Frozen(5), conv2=nn.Conv2d(5, 6, 3, bias=False),
        bn2=nn.BatchNorm2d(6), fc=nn.Linear(6, 3),
    )  # fmt: skip
    return net, image(), {"conv1.weight": NOT, "conv2.weight": UNIT}


@entry
def depthwise_separable_one_norm():  # T5
    def run(m, x):
        return m.fc(pooled(F.relu(m.bn(m.pointwise(m.depthwise(x))))))

    net = Net(
        run, depthwise=nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), pointwise=nn.Conv2d(3, 6, 1, bias=False),
        bn=nn.BatchNorm2d(6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"depthwise.weight": WHOLE, "pointwise.weight": UNIT}


@entry
def depthwise_with_norms():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False),
        nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    return net, image(), {"0.weight": UNIT, "3.weight": UNIT, "6.weight": UNIT, "10.weight": NOT}


@entry
def grouped_conv():
    def run(m, x):
        return m.fc(pooled(F.relu(m.bn(m.conv2(F.relu(m.conv1(x)))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 8, 1, bias=False), conv2=nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
        bn=nn.BatchNorm2d(8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"conv1.weight": BLOCK, "conv2.weight": UNIT}


@entry
def group_norm():  # T2
    def run(m, x):
        h = F.relu(m.gn1(m.conv1(x)))
        h = F.relu(m.gn2(m.conv2(h)))
        return m.fc(pooled(F.relu(m.gn3(m.conv3(h)))))

    net = Net(
        run, conv1=nn.Conv2d(3, 8, 3, padding=1), gn1=nn.GroupNorm(4, 8), conv2=nn.Conv2d(8, 8, 3, bias=False),
        gn2=nn.GroupNorm(2, 8), conv3=nn.Conv2d(8, 8, 1), gn3=nn.GroupNorm(8, 8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    expected = {"conv1.weight": JOINT_BLOCK, "conv1.bias": JOINT_BLOCK, "conv2.weight": BLOCK}
    return net, image(), expected | {"conv3.weight": UNIT, "conv3.bias": DEAD}


@entry
def instance_norm_transposed_conv():
    def run(m, x):
        return m.out(F.relu(m.norm2(m.up(F.leaky_relu(m.norm1(m.conv(x)), 0.1)))))

    net = Net(
        run, conv=nn.Conv2d(3, 4, 3, padding=1), norm1=nn.InstanceNorm2d(4, affine=True),
        up=nn.ConvTranspose2d(4, 5, 2, 2, bias=False), norm2=nn.InstanceNorm2d(5), out=nn.Conv2d(5, 2, 1),
    )  # fmt: skip
    return net, image(size=6), {"conv.weight": UNIT, "conv.bias": DEAD, "up.weight": UNIT, "out.weight": NOT}


@entry
def squeeze_excite():  # T11
    def gate(x, a, b):
        return x * torch.sigmoid(b(F.relu(a(pooled(x)))))[:, :, None, None]

    def run(m, x):
        h = F.relu(gate(m.bn1(m.conv1(x)), m.a1, m.b1))
        return m.fc(pooled(F.relu(m.bn2(gate(m.conv2(h), m.a2, m.b2)))))

    net = Net(
        run, conv1=nn.Conv2d(3, 6, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(6), a1=nn.Linear(6, 3),
        b1=nn.Linear(3, 6), conv2=nn.Conv2d(6, 6, 1, bias=False), bn2=nn.BatchNorm2d(6), a2=nn.Linear(6, 3),
        b2=nn.Linear(3, 6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"conv1.weight": UNIT, "conv2.weight": NOT, "a1.weight": NOT, "b2.weight": NOT}


@entry
def branches_before_one_norm():  # T12
    def run(m, x):
        h = F.relu(m.bn0(m.conv0(x)))
        return m.fc(pooled(F.relu(m.bn(m.conv3(h) + m.conv1(h)))))

    net = Net(
        run, conv0=nn.Conv2d(3, 6, 1, bias=False), bn0=nn.BatchNorm2d(6),
        conv3=nn.Conv2d(6, 6, 3, padding=1, bias=False),
        conv1=nn.Conv2d(6, 6, 1, bias=False), bn=nn.BatchNorm2d(6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"conv0.weight": UNIT, "conv3.weight": JOINT_UNIT, "conv1.weight": JOINT_UNIT}


@entry
def zero_padded_shortcut():  # T12
    def run(m, x):
        x = m.conv0(x)
        side = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return m.fc(pooled(F.relu(m.bn2(m.conv1(F.relu(m.bn1(x))) + side))))

    net = Net(
        run, conv0=nn.Conv2d(3, 4, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(4, 8, 3, 2, 1, bias=False), bn2=nn.BatchNorm2d(8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"conv0.weight": NOT, "conv1.weight": [UNIT, NOT, UNIT]}


@entry
def padded_pool_before_norm():  # T15
    def run(m, x):
        h = F.relu(m.bn1(F.avg_pool2d(m.conv1(x), 2)))
        h = F.relu(m.bn2(F.avg_pool2d(m.conv2(h), 3, 2, 1)))
        h = F.relu(m.bn3(F.relu(m.conv3(h))))
        return m.fc(pooled(h))

    net = Net(
        run, conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 4, 1), bn2=nn.BatchNorm2d(4),
        conv3=nn.Conv2d(4, 4, 1), bn3=nn.BatchNorm2d(4), fc=nn.Linear(4, 3),
    )  # fmt: skip
    expected = {"conv1.weight": UNIT, "conv1.bias": DEAD, "conv2.weight": JOINT_UNIT, "conv2.bias": JOINT_UNIT}
    return net, image(), expected | {"conv3.weight": JOINT_UNIT, "conv3.bias": JOINT_UNIT}


@entry
def dense_concatenation():
    def run(m, x):
        x = m.conv0(x)
        x = torch.cat([x, m.conv1(F.relu(m.norm1(x)))], 1)
        return m.fc(pooled(F.relu(m.norm2(x))))

    net = Net(
        run, conv0=nn.Conv2d(3, 4, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(4, 3, 3, padding=1, bias=False), norm2=nn.BatchNorm2d(7), fc=nn.Linear(7, 4),
    )  # fmt: skip
    return net, image(), {"conv0.weight": UNIT, "conv1.weight": UNIT}


@entry
def shared_conv():  # T18
    def run(m, x):
        h = F.relu(m.bn0(m.conv0(x)))
        h = F.relu(m.bn1(m.conv(h)))
        return m.fc(pooled(F.relu(m.bn2(m.conv(h)))))

    net = Net(
        run, conv0=nn.Conv2d(3, 6, 1, bias=False), bn0=nn.BatchNorm2d(6),
        conv=nn.Conv2d(6, 6, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(6), bn2=nn.BatchNorm2d(6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"conv.weight": UNIT}


@entry
def weight_standardization():  # T16
    class Standardized(nn.Conv2d):
        eps = 1e-10

        def forward(self, x):
            v, m = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
            return F.conv2d(x, (self.weight - m) / torch.sqrt(v + self.eps), None, self.stride, self.padding)

    def run(m, x):
        return m.fc(pooled(F.relu(m.gn(m.conv2(F.relu(m.conv1(x)))))))

    net = Net(
        run, conv1=Standardized(3, 4, 3, padding=1, bias=False), conv2=Standardized(4, 8, 3, bias=False),
        gn=nn.GroupNorm(2, 8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"conv1.weight": UNIT, "conv2.weight": UNIT, "fc.weight": NOT}
