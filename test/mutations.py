"""ROS messages gone wrong: copies with some fields changed to what their types allow and nobody expects."""

import array
import copy
import re

import numpy as np

INTEGERS = {f'{sign}int{bits}': bits for sign in ('', 'u') for bits in (8, 16, 32, 64)} | {'octet': 8}
TEXTS = (
    '',
    '/',
    '//',
    '/leading',
    'with space',
    'a' * 5000,
    'map',
    'eye',
    '..',
    '%s%n',
    'ÄÖ\t\n',
    '0',
    'rgb8',
    '16UC1',
    '-',
)
NUMBERS = (float('nan'), float('inf'), -float('inf'), 0.0, -0.0, -1.0, 1e-300, 1e30, -1e30, 1.0)
FIXED = re.compile(r'^(?P<kind>[\w/]+)\[(?P<length>\d+)\]$')
SEQUENCE = re.compile(r'^sequence<(?P<kind>[\w/]+)(, \d+)?>$')


def integer(rng, kind):
    """An extreme or small number of this type."""
    bits, signed = INTEGERS.get(kind, 8), not kind.startswith('u') and kind != 'octet'
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return int(rng.choice([low, high, 0, 1, min(high, 3), max(low, -1), high // 2]))


def scalar(rng, kind):
    """Another value of a primitive type."""
    if kind in ('double', 'float'):
        value = float(rng.choice(NUMBERS))
        return value if kind == 'double' else float(np.float32(value))
    if kind == 'boolean':
        return bool(rng.integers(2))
    if kind == 'string':
        return str(rng.choice(TEXTS))
    return integer(rng, kind)


def mutate(rng, message):
    """Change one field, wherever it is."""
    fields = message.get_fields_and_field_types()
    name = str(rng.choice(sorted(fields)))
    kind, value = fields[name], getattr(message, name)
    fixed, sequence = FIXED.match(kind), SEQUENCE.match(kind)
    if fixed:
        value = np.array(value)
        value[rng.integers(len(value))] = scalar(rng, fixed['kind'])
        setattr(message, name, value)
    elif sequence:
        setattr(message, name, resized(rng, sequence['kind'], value))
    elif hasattr(value, 'get_fields_and_field_types'):
        mutate(rng, value)
    else:
        setattr(message, name, scalar(rng, kind))


def resized(rng, kind, values):
    """A sequence that is empty, shorter, longer, or has another element."""
    what = rng.choice(['empty', 'shorter', 'longer', 'other'])
    values = values[:] if isinstance(values, array.array) else list(values)
    if what == 'empty' or not len(values):
        return values[:0]
    if what == 'shorter':
        return values[: rng.integers(len(values))]
    if what == 'longer':
        return values + values[: 1 + rng.integers(len(values))]
    index = int(rng.integers(len(values)))
    if hasattr(values[index], 'get_fields_and_field_types'):
        mutate(rng, values[index])
    else:
        values[index] = scalar(rng, kind)
    return values


def mutated(rng, message):
    """A copy with one to four fields changed."""
    message = copy.deepcopy(message)
    for _ in range(rng.integers(1, 5)):
        mutate(rng, message)
    return message
