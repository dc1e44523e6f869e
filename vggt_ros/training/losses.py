"""The losses of VGGT (arXiv 2503.11651, section 3.4): L = L_camera + L_depth + L_pmap + lambda L_track.

Every function is pure, takes tensors of any float type and returns a float32 mean; weights between them are the
caller's. Shapes: B windows, S frames, H x W pixels, Q tracks, I iterations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def huber(error: Tensor, epsilon: float) -> Tensor:
    """|.|_epsilon of the paper, of slope 1: error^2 / (2 epsilon) up to epsilon, |error| - epsilon / 2 beyond."""
    size = error.abs()
    return torch.where(size < epsilon, 0.5 * size * size / epsilon, size - 0.5 * epsilon)


def iteration_weights(iterations: int, discount: float) -> list[float]:
    """discount^(I - i) for i = 1 .. I, scaled to sum 1: later iterations count more."""
    weights = [discount ** (iterations - 1 - i) for i in range(iterations)]
    return [weight / sum(weights) for weight in weights]


def camera(encodings: Sequence[Tensor], target: Tensor, epsilon: float, discount: float) -> dict[str, Tensor]:
    """L_camera = sum_i |g^_i - g_i|_epsilon, by parts: 'translation', 'rotation', 'fov'.

    encodings: the pose encodings (B, S, 9) after every iteration; target: (B, S, 9). q and -q are one rotation, so each
    predicted quaternion is compared with the nearer sign of the target's. The norm is part of the error: predicted
    quaternions are drawn towards length 1, though nothing needs it.
    """
    target = target.float()
    parts: dict[str, Tensor] = {}
    for weight, encoding in zip(iteration_weights(len(encodings), discount), encodings, strict=True):
        encoding = encoding.float()
        side = (encoding[..., 3:7].detach() * target[..., 3:7]).sum(-1, keepdim=True)
        wanted = torch.where(side < 0, -target[..., 3:7], target[..., 3:7])
        errors = {
            'translation': encoding[..., :3] - target[..., :3],
            'rotation': encoding[..., 3:7] - wanted,
            'fov': encoding[..., 7:] - target[..., 7:],
        }
        for name, error in errors.items():
            term = weight * huber(error, epsilon).sum(-1).mean()
            parts[name] = parts[name] + term if name in parts else term
    return parts


def dense(value: Tensor, confidence: Tensor, target: Tensor, known: Tensor, alpha: float) -> dict[str, Tensor]:
    """L_depth or L_pmap: |Sigma (D^ - D)| + |Sigma (grad D^ - grad D)| - alpha log Sigma, by parts.

    value, target: (B, S, H, W, C), C = 1 for depth and 3 for points; confidence Sigma: (B, S, H, W), at least 1;
    known: (B, S, H, W) bool, other pixels count nowhere. Norms are Euclidean over C; gradients are differences of
    neighbouring pixels, right and down, where both are known. The mean is over known pixels (pairs).
    """
    confidence = confidence.float()
    error = torch.where(known[..., None], value.float() - target.float(), 0)
    count = known.sum().clamp(min=1)
    steps = []
    for axis in (2, 3):
        length = known.shape[axis] - 1
        both = known.narrow(axis, 1, length) & known.narrow(axis, 0, length)
        step = (error.narrow(axis, 1, length) - error.narrow(axis, 0, length)) * both[..., None]
        steps.append((confidence.narrow(axis, 0, length) * _norm(step)).sum() / both.sum().clamp(min=1))
    return {
        'error': (confidence * _norm(error)).sum() / count,
        'gradient': steps[0] + steps[1],
        'confidence': -alpha * (confidence.log() * known).sum() / count,
    }


def _norm(error: Tensor) -> Tensor:
    """Euclidean norm of the last axis; its gradient at 0 is 0, not NaN."""
    return error[..., 0].abs() if error.shape[-1] == 1 else torch.linalg.vector_norm(error, dim=-1)


def track_position(tracks: Sequence[Tensor], target: Tensor, visible: Tensor, discount: float) -> Tensor:
    """L_track = sum_j sum_i |y_ji - y^_ji| over visible points: mean distance in pixels, later iterations count more.

    tracks: (B, S, Q, 2) after every iteration; target: (B, S, Q, 2); visible: (B, S, Q) bool. Frame 0 holds the queries
    and does not count.
    """
    seen = visible[:, 1:]
    # Points behind the camera have no pixel; where nothing counts nothing may be infinite either.
    target = torch.where(seen[..., None], target[:, 1:].float(), 0)
    total = target.new_zeros(())
    for weight, track in zip(iteration_weights(len(tracks), discount), tracks, strict=True):
        error = torch.where(seen[..., None], track[:, 1:].float() - target, 0)
        total = total + weight * _norm(error).sum()
    return total / seen.sum().clamp(min=1)


def matching(features: Tensor, maps: Tensor, target: Tensor, visible: Tensor) -> Tensor:
    """Cross entropy of finding each query's point in whole feature maps by its feature alone, over visible points.

    Not in the paper: it teaches the tracker's features to tell places apart long before the tracker can use them.
    features: (B, Q, C) of the queries; maps: (B, S, h, w, C); target: (B, S, Q, 2) in pixels of the maps; visible:
    (B, S, Q) bool. The probability of a place is the softmax over the map of features . map / sqrt(C), interpolated
    between its four pixels. Frame 0 holds the queries and does not count.
    """
    height, width, channels = maps.shape[2:]
    seen = visible[:, 1:]
    logits = torch.einsum('bqc,bsnc->bsqn', features, maps[:, 1:].flatten(2, 3)) / channels**0.5
    place = torch.where(seen[..., None], target[:, 1:].float(), 0)
    low = place.floor()
    probability = torch.zeros_like(place[..., 0])
    normaliser = logits.logsumexp(-1)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pixel = low + low.new_tensor(corner)
        weight = (1 - (place - pixel).abs()).clamp(min=0).prod(-1)
        x, y = pixel[..., 0].clamp(0, width - 1), pixel[..., 1].clamp(0, height - 1)
        logit = logits.gather(-1, (y * width + x).long()[..., None])[..., 0]
        probability = probability + weight * (logit - normaliser).exp()
    entropy = -torch.where(seen, probability.clamp(min=1e-12), 1).log()
    return entropy.sum() / seen.sum().clamp(min=1)


def binary(probability: Tensor, truth: Tensor, judged: Tensor) -> Tensor:
    """Binary cross entropy of a probability (B, S, Q), over the judged points of all frames but the first."""
    probability = probability[:, 1:].float().clamp(1e-6, 1 - 1e-6)
    entropy = F.binary_cross_entropy(probability, truth[:, 1:].float(), reduction='none')
    return (entropy * judged[:, 1:]).sum() / judged[:, 1:].sum().clamp(min=1)
