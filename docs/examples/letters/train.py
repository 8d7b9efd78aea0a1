"""Train the network on the text of the package's own documentation strings. The score is the loss on the last fifth."""

import ast
from pathlib import Path

import torch
import torch.nn.functional as F
from net import LETTERS

import benchmark

EPOCHS, STEPS, LENGTH, BATCH = 3, 40, 48, 32


def text():
    """The docstrings of the package `benchmark`, in the order of its files, with the letters that the network knows."""
    parts = []
    for path in sorted(Path(benchmark.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (words := ast.get_docstring(node)):
                parts.append(words.lower())
    return "".join(letter for letter in "\n".join(parts) if letter in LETTERS)


def train(model, *, seed, device, report):
    letters = torch.tensor([LETTERS.index(letter) for letter in text()], device=device)
    cut = len(letters) * 4 // 5
    train, held_out = letters[:cut], letters[cut : cut + 4800].reshape(-1, LENGTH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(1, EPOCHS + 1):
        for _ in range(STEPS):
            starts = torch.randint(0, len(train) - LENGTH - 1, (BATCH,), generator=order)
            batch = torch.stack([train[start : start + LENGTH + 1] for start in starts.tolist()])
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            val_loss = loss_of(model, held_out).item()
        report(epoch, train_loss=loss.item(), val_loss=val_loss)
    return val_loss


def loss_of(model, batch):
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
