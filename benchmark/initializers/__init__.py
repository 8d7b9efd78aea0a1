"""Weight initialisers: as functions on a module, from a configuration, or as a region text made from one.

>>> log = initialize(model, [{"type": "Kaiming", "layer": "Conv2d"}, {"type": "Xavier", "layer": "Linear"}])
>>> log.unset  # the parameters that no rule has set
"""

from benchmark.initializers.config import InitCfg, initialize
from benchmark.initializers.errors import (
    CheckpointError,
    InitArgumentError,
    InitConfigError,
    UninitializableModuleError,
    UnknownInitializerError,
    UnknownSubmoduleError,
)
from benchmark.initializers.export import region_from_init_cfg
from benchmark.initializers.log import InitLog, ParameterLog, log_function
from benchmark.initializers.modules import (
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    delta_orthogonal_init,
    dirac_init,
    fixup_init,
    kaiming_init,
    lecun_normal_init,
    normal_init,
    orthogonal_init,
    trunc_normal_init,
    uniform_init,
    variance_scaling_init,
    xavier_init,
    zero_module,
    zero_ones_init,
)
from benchmark.initializers.pretrained import load_pretrained
from benchmark.initializers.reading import parse_init_cfg
from benchmark.initializers.registry import INITIALIZERS, LayerRule, Rule, register

__all__ = [
    "INITIALIZERS",
    "CheckpointError",
    "InitArgumentError",
    "InitCfg",
    "InitConfigError",
    "InitLog",
    "LayerRule",
    "ParameterLog",
    "Rule",
    "UninitializableModuleError",
    "UnknownInitializerError",
    "UnknownSubmoduleError",
    "bias_init_with_prob",
    "caffe2_xavier_init",
    "constant_init",
    "delta_orthogonal_init",
    "dirac_init",
    "fixup_init",
    "initialize",
    "kaiming_init",
    "lecun_normal_init",
    "load_pretrained",
    "log_function",
    "normal_init",
    "orthogonal_init",
    "parse_init_cfg",
    "region_from_init_cfg",
    "register",
    "trunc_normal_init",
    "uniform_init",
    "variance_scaling_init",
    "xavier_init",
    "zero_module",
    "zero_ones_init",
]
