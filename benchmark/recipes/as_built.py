"""The baseline of a user's networks: it leaves every parameter as the network's own constructors made it."""

REGION = '''\
def initialize_weights(model: nn.Module, config: dict[str, str | int]) -> None:
    """As built: leave every parameter as the network's own constructors made it, under the seed."""
'''
