"""A training so small that it runs in a test: the configuration that the training tests share."""

import copy

from vggt_ros.training import config as configuration

VALUES = {
    'network': {
        'img_size': 56,
        'embed_dim': 32,
        'depth': 4,
        'num_heads': 2,
        'patch_embed': 'stem',
        'intermediate_layers': [0, 1, 2, 3],
        'camera_trunk_depth': 1,
        'camera_num_heads': 2,
        'dpt_features': 8,
        'dpt_out_channels': [8, 8, 8, 8],
        'track_features': 8,
        'track_hidden_size': 8,
        'track_corr_levels': 2,
        'track_corr_radius': 1,
    },
    'heads': ['camera', 'depth', 'track'],
    'data': {
        'frames_per_step': 6,
        'worlds': 2,
        'frames': 4,
        'slots': 2,
        'uses': 2,
        'aspects': {'4x3': 1},
        'fov': [60, 80],
        'bare': 0.0,
        'mirrors': 0.0,
        'shadows': 0.0,
        'jitter': 1.0,
        'noise': 0.02,
        'queries': 8,
    },
    'stages': [
        {
            'until': 2,
            'frames': [2, 2],
            'rate': [4, 8],
            'overlap': 0.5,
            'clutter': [0.3, 0.6],
            'worlds': {'room': 1},
            'paths': {'handheld': 1},
            'longest': 42,
        },
        {
            'until': 0,
            'frames': [2, 3],
            'rate': [2, 6],
            'overlap': 0.3,
            'clutter': [0.5, 1.0],
            'worlds': {'room': 1, 'hall': 1},
            'paths': {'handheld': 1, 'orbit': 1},
            'longest': 56,
        },
    ],
    'loss': {
        'camera': 1.0,
        'translation': 1.0,
        'rotation': 1.0,
        'fov': 0.5,
        'depth': 1.0,
        'point': 0.0,
        'track': 0.05,
        'epsilon': 0.02,
        'alpha': 0.2,
        'pose_discount': 0.6,
        'track_discount': 0.8,
        'visibility': 1.0,
        'matching': 0.05,
        'depth_frames': 0.5,
        'track_windows': 0.5,
        'track_iterations': 2,
    },
    'optimizer': {
        'learning_rate': 0.001,
        'weight_decay': 0.05,
        'betas': [0.9, 0.99],
        'warmup': 2,
        'decay': 0.25,
        'clip': 1.0,
        'ema': 0.99,
    },
    'run': {
        'steps': 6,
        'seed': 3,
        'precision': 'float32',
        'save_minutes': 1000.0,
        'validate_steps': 1000,
        'workers': 0,
    },
}


def config(**changes):
    """The small configuration with some fields changed: ``config(**{'run.steps': 3})``."""
    values = copy.deepcopy(VALUES)
    for name, value in changes.items():
        *path, last = name.split('.')
        section = values
        for part in path:
            section = section[part]
        section[last] = value
    return configuration.from_dict(values)
