"""More of vision: bottlenecks, the designs of ConvNeXt and U-Net, and reparametrized weights."""

import torch
import torch.nn.functional as F
from torch import nn
from zoo_parts import (
    DEAD,
    JOINT_WHOLE,
    NOT,
    UNIT,
    WHOLE,
    Net,
    entry,
    image,
    pooled,
    vector,
)


@entry
def linear_bottleneck():  # T14: the gain reaches the next norm linearly, the shift is deleted there
    def run(m, x):
        h = m.bn3(m.expand(m.bn2(m.project(F.relu6(m.bn1(m.conv(x)))))))
        return m.fc(pooled(F.relu(h)))

    net = Net(
        run, conv=nn.Conv2d(3, 6, 3, bias=False), bn1=nn.BatchNorm2d(6), project=nn.Conv2d(6, 4, 1, bias=False),
        bn2=nn.BatchNorm2d(4), expand=nn.Conv2d(4, 8, 1, bias=False), bn3=nn.BatchNorm2d(8), fc=nn.Linear(8, 3),
    )  # fmt: skip
    expected = {"project.weight": UNIT, "bn2.weight": WHOLE, "bn2.bias": DEAD, "expand.weight": UNIT}
    return net, image(), expected | {"conv.weight": UNIT, "bn1.weight": NOT}


@entry
def convnext_block():  # a depthwise kernel with bias under LayerNorm over channels: only both together
    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.dw, self.norm = nn.Conv2d(d, d, 3, padding=1, groups=d), nn.LayerNorm(d)
            self.pw1, self.pw2, self.gamma = nn.Linear(d, 2 * d), nn.Linear(2 * d, d), nn.Parameter(0.1 * torch.ones(d))

        def forward(self, x):
            h = self.pw2(F.gelu(self.pw1(self.norm(self.dw(x).permute(0, 2, 3, 1)))))
            return x + (self.gamma * h).permute(0, 3, 1, 2)

    def run(m, x):
        x = m.norm(m.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return m.head(m.last(pooled(m.block(x))))

    net = Net(
        run,
        stem=nn.Conv2d(3, 6, 2, 2),
        norm=nn.LayerNorm(6),
        block=Block(6),
        last=nn.LayerNorm(6),
        head=nn.Linear(6, 4),
    )
    expected = {f"{m}.{t}": JOINT_WHOLE for m in ("stem", "block.dw") for t in ("weight", "bias")}
    return net, image(size=8), expected | {"block.pw1.weight": NOT, "block.pw2.weight": NOT, "head.weight": NOT}


@entry
def unet_with_instance_norm():
    class Double(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True)

        def forward(self, x):
            return F.leaky_relu(self.norm(self.conv(x)), 0.1)

    def run(m, x):
        a = m.down1(x)
        b = m.down2(F.max_pool2d(a, 2))
        return m.out(m.up(torch.cat([m.raise_(b), a], 1)))

    net = Net(
        run, down1=Double(3, 4), down2=Double(4, 6), raise_=nn.ConvTranspose2d(6, 4, 2, 2), up=Double(8, 4),
        out=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    expected = {f"{m}.conv.weight": UNIT for m in ("down1", "down2", "up")}
    expected |= {f"{m}.conv.bias": DEAD for m in ("down1", "down2")}
    return net, image(size=8, batch=2), expected | {"out.weight": NOT, "raise_.weight": JOINT_WHOLE}


@entry
def weight_standardization_by_batch_norm():  # as timm's StdConv: the weight itself goes through batch norm
    class Standard(nn.Conv2d):
        eps = 1e-6

        def forward(self, x):
            weight = self.weight.reshape(1, self.out_channels, -1)
            weight = F.batch_norm(weight, None, None, training=True, momentum=0.0, eps=self.eps)
            return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)

    def run(m, x):
        return m.fc(pooled(F.relu(m.conv(x))))

    return Net(run, conv=Standard(3, 5, 3), fc=nn.Linear(5, 3)), image(), {"conv.weight": UNIT, "conv.bias": NOT}


@entry
def spectral_norm():  # T16: divided by its own largest singular value
    norm = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(norm(nn.Linear(7, 8)), nn.ReLU(), nn.Linear(8, 3))
    return net, vector(), {"0.parametrizations.weight.original": WHOLE, "0.bias": NOT, "2.weight": NOT}


@entry
def weight_norm_before_batch_norm():  # T16: the magnitude is divided out once more, the direction is free anyway
    norm = nn.utils.parametrizations.weight_norm
    net = nn.Sequential(norm(nn.Linear(7, 8)), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    stem = "0.parametrizations.weight.original"
    return net, vector(), {f"{stem}1": UNIT, f"{stem}0": DEAD, "0.bias": DEAD, "3.weight": NOT}


@entry
def low_rank_adapter_of_a_normalized_layer():  # a zero at the start (B) is no invariance
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(7, 8, bias=False)
            self.a, self.b = nn.Parameter(torch.randn(2, 7)), nn.Parameter(torch.zeros(8, 2))
            self.bn, self.out = nn.BatchNorm1d(8), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(F.relu(self.bn(self.base(x) + x @ self.a.T @ self.b.T)))

    return Adapted(), vector(), {"base.weight": JOINT_WHOLE, "b": NOT}
