"""Train one network from an initialisation of your own.

Only the region between the two markers may be edited; everything else is fixed.

    python -m sandbox.custom_init --arch resnet20 --dataset cifar10 --epochs 1

`initialize_weights(model, config)` gets a freshly built model on the CPU and must set every parameter in place,
without data. `config` has arch (str), num_classes (int) and depth (int, the number of Conv2d and Linear layers).
The modules: resnet20 and resnet56 are made of BasicBlock (conv1, bn1, conv2, bn2; shortcut is an empty Sequential or
Sequential(conv1x1, bn)), mobilenetv2 of InvertedResidual (conv, a Sequential; use_residual), vgg16bn of neither.
"""

# ruff: noqa: F401 (the region may use every name imported here)
import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import init

from benchmark.models import ARCHITECTURES, BasicBlock, InvertedResidual, build_model, init_config


# ==== EDITABLE REGION: begin ====
def initialize_weights(model: nn.Module, config: dict[str, str | int]) -> None:
    """Kaiming initialisation: keep the variance of the signal constant through ReLU layers (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(module.bias)


# ==== EDITABLE REGION: end ====


def main() -> None:
    """Run one task by hand and print its learning curve; no budget is spent and nothing is recorded."""
    from benchmark.data import NUM_CLASSES, DataError, load_dataset
    from benchmark.report_lines import final_metrics_lines, train_metrics_line
    from benchmark.tasks import Recipe
    from benchmark.train import train

    parser = argparse.ArgumentParser(description="Train one network from initialize_weights and print its accuracy.")
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="resnet20")
    parser.add_argument("--dataset", choices=sorted(NUM_CLASSES), default="cifar10")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data-root", type=Path, help="folder with the data set, if it is not in a usual place")
    parser.add_argument("--download", action="store_true", help="fetch the data set if it is nowhere")
    args = parser.parse_args()
    if args.epochs < 1 or args.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    try:
        dataset = load_dataset(args.dataset, data_root=args.data_root, download=args.download)
    except DataError as error:
        parser.exit(1, f"{error}\n")

    torch.manual_seed(args.seed)
    model = build_model(args.arch, dataset.num_classes)
    initialize_weights(model, init_config(model, args.arch, dataset.num_classes))
    outcome = train(
        model,
        dataset,
        Recipe(epochs=args.epochs, lr=args.lr, batch_size=args.batch_size),
        seed=args.seed,
        device=args.device,
        on_epoch=lambda epoch: print(train_metrics_line(epoch), flush=True),
    )
    best = max(epoch.test_acc for epoch in outcome.curve)
    print("\n".join(["", *final_metrics_lines(f"{args.arch}-{args.dataset}", best)]))


if __name__ == "__main__":
    main()
