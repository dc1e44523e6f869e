"""How the weights move: parameter groups, the learning rate over the steps, and the exponential mean."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from vggt_ros.network import VGGT, ConfigError
from vggt_ros.training.config import OptimizerConfig

# Half a life of the exponential mean is at most this share of the steps so far: early weights are not worth keeping.
_EMA_WARMUP = 10


def freeze(network: VGGT, patterns: Iterable[str]) -> list[str]:
    """Exclude the parameters whose names match from training; their names. ConfigError for a pattern without match."""
    frozen: list[str] = []
    for pattern in patterns:
        matched = [name for name, _ in network.named_parameters() if fnmatch(name, pattern)]
        if not matched:
            raise ConfigError(f'run.frozen: no parameter matches {pattern!r}')
        frozen += matched
    for name, parameter in network.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return frozen


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay is for this parameter: matrices and kernels, not tokens nor what stands per channel."""
    return parameter.ndim >= 2 and 'token' not in name and 'virual_tracks' not in name


def make_adamw(modules: nn.ModuleDict, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters of the ``network`` and whatever else learns with it.

    Each group's ``share`` is what its learning rate is multiplied by: the last layers of heads write poses and pixels
    directly, and steps that suit the aggregator shake them.
    """
    groups: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for name, one in modules.named_parameters():
        if one.requires_grad:
            part = name.removeprefix('network.').split('.')[0]
            groups.setdefault((decays(name, one), part.removesuffix('_head')), []).append(one)
    if not groups:
        raise ConfigError('run.frozen leaves no parameter to train')
    settings: list[dict[str, Any]] = [
        {
            'params': parameters,
            'weight_decay': config.weight_decay if decayed else 0.0,
            'share': config.heads.get(part, 1.0),
        }
        for (decayed, part), parameters in groups.items()
    ]
    fused = settings[0]['params'][0].is_cuda
    return torch.optim.AdamW(settings, lr=config.learning_rate, betas=config.betas, fused=fused)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The trapezoid: up over ``warmup`` steps, constant, down to 0 over the last ``decay`` share of all ``steps``."""
    up = (step + 1) / max(config.warmup, 1)
    down = (steps - step) / max(config.decay * steps, 1)
    return config.learning_rate * max(0.0, min(1.0, up, down))


def ema_decay(step: int, config: OptimizerConfig) -> float:
    """Decay of the exponential mean at a step, smaller at first."""
    return min(config.ema, (1 + step) / (_EMA_WARMUP + step))


@torch.no_grad()
def update_ema(mean: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    """mean = decay mean + (1 - decay) weights."""
    state = network.state_dict()
    torch._foreach_lerp_(list(mean.values()), [state[key] for key in mean], 1 - decay)


def clip(network: nn.Module, largest: float) -> Tensor:
    """Scale the gradients of each part of the network down to a norm of at most ``largest``; the norm of all before.

    Part by part, because a head's gradients can be a hundred times those of the aggregator and would silence it.
    """
    norms = []
    for part in network.children():
        gradients = [one.grad for one in part.parameters() if one.grad is not None]
        if gradients:
            norms.append(nn.utils.get_total_norm(gradients))
            nn.utils.clip_grads_with_norm_([p for p in part.parameters() if p.grad is not None], largest, norms[-1])
    return torch.stack(norms).norm()
