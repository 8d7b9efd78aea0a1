"""A table of recipes at step 0: python -m benchmark.signal_table [--recipes NAME …] [--archs ARCH …] [--dataset NAME].

One row per recipe and network, as Markdown, from one batch of training pictures without augmentation.
"""

from __future__ import annotations

import argparse

import torch

from benchmark.augment import Normalizer
from benchmark.data import ImageDataset, load_dataset
from benchmark.models import ARCHITECTURES, build_model, init_config
from benchmark.recipes import get_recipe, load_region, recipe_names
from benchmark.signal_stats import SignalStatistics, signal_statistics

HEADER = (
    "| recipe | network | loss | logit scale | dead ReLUs | branch/skip, largest | relative gradient, first layer "
    "| largest | fault |\n|---|---|---|---|---|---|---|---|---|"
)


def measure(recipe: str, arch: str, data: ImageDataset, *, batch: int = 128, seed: int = 0) -> SignalStatistics:
    """Return the statistics of `arch` under a recipe on the first `batch` training pictures of `data`."""
    model = build_model(arch, data.num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        load_region(get_recipe(recipe).region)(model, init_config(model, arch, data.num_classes))
    images = Normalizer(data.mean, data.std, torch.device("cpu"))(data.train_images[:batch].contiguous())
    return signal_statistics(model, images, data.train_labels[:batch])


def row(recipe: str, arch: str, found: SignalStatistics) -> str:
    """Return one line of the table."""
    branch = f"{max(each.branch_to_skip for each in found.branches):.2f}" if found.branches else "–"
    first, largest = found.layers[0].relative_gradient, max(layer.relative_gradient for layer in found.layers)
    cells = [recipe, arch, f"{found.loss:.2f}", f"{found.logit_scale:.3f}", f"{found.dead_relu_share:.1%}", branch]
    return f"| {' | '.join([*cells, f'{first:.2g}', f'{largest:.2g}', '; '.join(found.faults) or '–'])} |"


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=recipe_names(), default=recipe_names(), metavar="NAME")
    parser.add_argument(
        "--archs", nargs="+", choices=tuple(ARCHITECTURES), default=["resnet56", "vgg16bn", "mobilenetv2"]
    )
    parser.add_argument("--dataset", default="openclipart100")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = load_dataset(arguments.dataset)
    print(HEADER)
    for recipe in arguments.recipes:
        for arch in arguments.archs:
            print(row(recipe, arch, measure(recipe, arch, data, seed=arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
