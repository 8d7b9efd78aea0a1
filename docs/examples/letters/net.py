"""A recurrent network that predicts the next letter. Its embedding and its head share one weight."""

from torch import nn

LETTERS = "\n abcdefghijklmnopqrstuvwxyz.,"


class Letters(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, len(LETTERS), bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, letters):
        return self.head(self.recurrent(self.embedding(letters))[0])


def build():
    return Letters()
