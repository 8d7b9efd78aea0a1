"""Where the time of a training step goes in float32 with AVX2, and which layout is faster.

It needs no AVX2 machine: torch and oneDNN are told to use no more.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmark.building import build_task_model
from benchmark.data.prepared import load_task_data
from benchmark.task import Task
from benchmark.tasks import PROFILES
from benchmark.train import train

_KINDS = {
    "convolutions": ("aten::convolution_backward", "aten::mkldnn_convolution"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU": ("aten::threshold_backward", "aten::hardtanh_backward", "aten::clamp_min_", "aten::clamp"),
    "additions": ("aten::add", "aten::add_"),
    "copies": ("aten::copy_",),
}


def shares(task: Task) -> dict[str, float]:
    """Kind of operation → its share of the processor's time in one epoch of 192 pictures, in percent."""
    data = load_task_data(task.data, task.dataset, None)
    data = replace(
        data,
        train_images=data.train_images[:192],
        train_labels=data.train_labels[:192],
        test_images=data.test_images[:64],
        test_labels=data.test_labels[:64],
    )
    model = build_task_model(task, 0)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        train(model, data, replace(task.recipe, epochs=1), seed=0, precision="fp32")
    spent = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    return {
        kind: 100 * sum(spent.get(name, 0) for name in names) / sum(spent.values()) for kind, names in _KINDS.items()
    }


def layouts(task: Task, rounds: int = 5) -> float:
    """Processor seconds of a step in NCHW, divided by those in channels_last: the median of interleaved rounds."""
    sides = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(task.recipe.batch_size, 3, 32, 32).contiguous(memory_format=layout)
        sides[layout] = (build_task_model(task, 0).to(memory_format=layout), images)  # type: ignore[call-overload]
    labels = torch.zeros(task.recipe.batch_size, dtype=torch.long)
    ratios = []
    for number in range(rounds + 1):
        seconds = []
        for model, images in sides.values():
            start = time.process_time()
            F.cross_entropy(model(images), labels).backward()
            seconds.append(time.process_time() - start)
        if number:
            ratios.append(seconds[0] / seconds[1])
    return sorted(ratios)[rounds // 2]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"capability {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, batches as in pocket")
    for task in (*PROFILES["pocket"].visible, *PROFILES["pocket"].hidden):
        found = ", ".join(f"{kind} {share:.0f} %" for kind, share in shares(task).items())
        print(f"{task.name}: {found}; NCHW takes {layouts(task):.2f} × the time of channels_last", flush=True)
