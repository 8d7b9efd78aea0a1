"""Write ten classes of the package's clip art as a folder of pictures: python make_pictures.py [FOLDER]."""

import sys
from pathlib import Path

from PIL import Image

from benchmark.data import load_dataset

CLASSES = 10


def main(folder: Path) -> None:
    data = load_dataset("openclipart100")
    chosen = data.train_labels.bincount().argsort(descending=True, stable=True)[:CLASSES].tolist()
    for split in ("train", "test"):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels").tolist()
        for index, label in enumerate(labels):
            if label in chosen:
                place = folder / split / data.class_names[label].replace("/", "-")
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(place / f"{index}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("clipart")))
