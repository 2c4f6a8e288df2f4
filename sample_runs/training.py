"""The two trainings behind make.py: data, loops, and what is saved when."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from truth import Truth

TRUTH = Path(__file__).parent / "truth"  # beside the runs, not in them: a run folder holds checkpoints only
TRAIN = 1536  # of the 1,797 digits; the others tell the accuracy
FIRST_LABEL, BEGIN = 17, 27  # tokens: grey levels 0-16, digits 17-26, the beginning; 28-31 pad the vocabulary, unused


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Scikit-learn's bundled digits in a fixed random order: grey levels [1797, 8, 8] and labels [1797], integers."""
    from sklearn.datasets import load_digits

    pixels, labels = (torch.from_numpy(a).long() for a in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return pixels.view(-1, 8, 8)[order], labels[order]


def batches(size: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """The digits of every training step, as indices: each epoch is a fresh shuffle of the training digits."""
    for _ in range(epochs):
        yield from torch.randperm(TRAIN, generator=generator).split(size)


def saved_steps(steps: int, every: int, pairs: tuple[int, ...]) -> set[int]:
    """Which steps are saved: every so many, a few with the step right after them, and the end."""
    return {*range(every, steps, every), steps, *pairs, *(t + 1 for t in pairs)}


def train_resnet(factory: Callable[[], nn.Module], folder: Path) -> str:
    """SGD with momentum 0.9; the learning rate drops once. A line that says how it went."""
    args = {
        "arch": "resnet", "epochs": 270, "batch_size": 48, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3,
        "milestones": [95], "gamma": 0.2, "label_smoothing": 0.1, "label_noise": 0.1, "pixel_noise": 0.8, "seed": 1,
    }  # fmt: skip
    per_epoch = TRAIN // args["batch_size"]
    steps = args["epochs"] * per_epoch
    images, labels = digits()
    pixels = (images.float()[:, None] - 4.9) / 6.0
    torch.manual_seed(args["seed"])
    generator = torch.Generator().manual_seed(args["seed"])
    model = factory()
    named = list(model.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.ndim >= 2]},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "weight_decay": 0.0},  # gains and biases
    ]
    optimizer = torch.optim.SGD(groups, lr=args["lr"], momentum=args["momentum"], weight_decay=args["weight_decay"])
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, args["milestones"], args["gamma"])
    truth = Truth(model, steps, apart=("layer1.conv1.weight", "layer2.conv2.weight"), units={})

    def save(step: int, epoch: int) -> None:
        truth.checkpoint(step)
        state = {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
            "step": step, "epoch": epoch, "args": args,
        }  # fmt: skip
        torch.save(state, folder / f"step_{step:06d}.pt")

    wanted = saved_steps(steps, every=150, pairs=(600, 1500, 2400, 2850, 3150, 4500, 6000, 8400))
    save(0, 0)
    for step, indices in enumerate(batches(args["batch_size"], args["epochs"], generator), start=1):
        x = pixels[indices]
        x = x + args["pixel_noise"] * torch.randn(x.shape, generator=generator)
        wrong = torch.rand(len(indices), generator=generator) < args["label_noise"]
        y = torch.where(wrong, torch.randint(10, (len(indices),), generator=generator), labels[indices])
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y, label_smoothing=args["label_smoothing"])
        loss.backward()
        learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        truth.record(step, learning_rate, loss.item())
        if step % per_epoch == 0:
            scheduler.step()  # once an epoch, before the epoch's last state is saved
        if step in wanted:
            save(step, step // per_epoch)
    model.eval()
    with torch.no_grad():
        accuracy = (model(pixels[TRAIN:]).argmax(1) == labels[TRAIN:]).double().mean().item()
    truth.save(
        TRUTH / f"{folder.name}.npz", weight_decay=args["weight_decay"], momentum=args["momentum"],
        drop=per_epoch * args["milestones"][0], accuracy=accuracy,
    )  # fmt: skip
    return f"{steps} steps, accuracy on {len(labels) - TRAIN} other digits {accuracy:.3f}"


def warmup_cosine(step: int, *, warmup: int, steps: int, final: float) -> float:
    """Factor of the learning rate for update number step + 1: linear warm-up, then a cosine down to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train_qknorm(factory: Callable[[], nn.Module], sizes: dict[str, int], folder: Path) -> str:
    """AdamW, warm-up and cosine, saved in the layout of the Hugging Face Trainer. A line that says how it went."""
    from safetensors.torch import save_file

    epochs, batch_size, peak, decay, logging_steps = 88, 32, 4e-3, 0.25, 50
    per_epoch = TRAIN // batch_size
    steps = epochs * per_epoch
    images, labels = digits()
    begin = torch.full((len(labels), 1), BEGIN)
    tokens = torch.cat([begin, images.flatten(1), FIRST_LABEL + labels[:, None]], 1)  # [1797, 66]
    torch.manual_seed(2)
    generator = torch.Generator().manual_seed(2)
    model = factory()
    for p in model.parameters():
        if p.ndim >= 2:
            nn.init.normal_(p, std=0.05)
    named = list(model.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.ndim >= 2], "weight_decay": decay},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), eps=1e-8)
    factor = partial(warmup_cosine, warmup=200, steps=steps, final=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    heads = {name: sizes["heads"] for name, _ in named if "q_proj" in name or "k_proj" in name}
    truth = Truth(model, steps, apart=tuple(heads), units=heads)
    config = {
        "architectures": ["CausalLM"], "model_type": "digits_qknorm", "vocab_size": sizes["vocabulary"],
        "hidden_size": sizes["hidden"], "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["heads"], "head_dim": sizes["hidden"] // sizes["heads"],
        "intermediate_size": sizes["inner"], "num_hidden_layers": sizes["layers"], "rms_norm_eps": 1e-6,
        "rope_theta": 100.0, "tie_word_embeddings": False, "torch_dtype": "float32",
    }  # fmt: skip
    history: list[dict[str, float]] = []

    def save(step: int) -> None:
        truth.checkpoint(step)
        target = folder / f"checkpoint-{step}"
        target.mkdir()
        save_file(model.state_dict(), target / "model.safetensors", metadata={"format": "pt"})
        torch.save(optimizer.state_dict(), target / "optimizer.pt")
        torch.save(scheduler.state_dict(), target / "scheduler.pt")
        state = {
            "epoch": step / per_epoch, "global_step": step, "is_world_process_zero": True, "log_history": history,
            "logging_steps": logging_steps, "max_steps": steps, "num_train_epochs": epochs, "save_steps": 150,
            "train_batch_size": batch_size,
        }  # fmt: skip
        write_json(target / "trainer_state.json", state)
        write_json(target / "config.json", config)

    wanted = saved_steps(steps, every=150, pairs=(450, 900, 1500, 2100, 3000, 3600))
    total = 0.0
    for step, indices in enumerate(batches(batch_size, epochs, generator), start=1):
        optimizer.zero_grad()
        logits = model(tokens[indices, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[indices, 1:].flatten())
        loss.backward()
        learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        truth.record(step, learning_rate, loss.item())
        scheduler.step()
        total += loss.item()
        if step % logging_steps == 0:
            entry = {"epoch": step / per_epoch, "learning_rate": learning_rate, "loss": total / logging_steps}
            history.append({**entry, "step": step})
            total = 0.0
        if step in wanted:
            save(step)
    with torch.no_grad():
        told = model(tokens[TRAIN:, :-1])[:, -1].argmax(1)
    accuracy = (told == tokens[TRAIN:, -1]).double().mean().item()
    truth.save(TRUTH / f"{folder.name}.npz", weight_decay=decay, beta1=0.9, beta2=0.95, accuracy=accuracy)
    return (
        f"{steps} steps, accuracy on {len(labels) - TRAIN} other digits {accuracy:.3f}, loss {history[-1]['loss']:.3f}"
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """As the Trainer writes it."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
