"""The node, whose network and threads fail when ``~/fault`` says so.

python -m vggt_ros.ros.soak.faulty_node --ros-args -p window:=6
ros2 topic pub -1 /vggt/fault std_msgs/msg/String '{data: device 3}'

A fault is a name of ``DEEDS`` and how often it happens (1; ``hang``: seconds that one window takes); ``none`` ends it.
The output has a line ``told: ...`` for each order and ``injected: ...`` for each time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from std_msgs.msg import String

from vggt_ros.pipeline import Pipeline
from vggt_ros.ros import node
from vggt_ros.ros.loading import load_predictor
from vggt_ros.types import DeviceError, WindowTooLargeError


class NotUnderstood(Exception):
    """An error that nothing in the project knows."""


def _hang(seconds: float) -> None:
    time.sleep(seconds)


def _raise(error: type[BaseException], *arguments: Any) -> Callable[[float], None]:
    def deed(_: float) -> None:
        raise error(*arguments)  # a new one each time: an error keeps all that its traceback saw, a network among it

    return deed


# Name -> where it happens, and what. The predictor is the network's edge, the decoder is inside it.
DEEDS: dict[str, tuple[str, Callable[[float], None]]] = {
    'device': ('predictor', _raise(DeviceError, 'injected: the device does not answer')),
    'oom': ('predictor', _raise(WindowTooLargeError, 8)),
    'torch_oom': ('decoder', _raise(torch.OutOfMemoryError, 'injected: out of memory')),
    'crash': ('predictor', _raise(NotUnderstood, 'injected: an error in the network')),
    'exit': ('predictor', _raise(SystemExit, 'injected: the end of the thread')),
    'hang': ('predictor', _hang),
    'camera_crash': ('camera', _raise(NotUnderstood, 'injected: an error in the front end')),
    'camera_exit': ('camera', _raise(SystemExit, 'injected: the end of the thread')),
}


class Orders:
    """What is to fail next; told by the executor, obeyed by the threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name, self._number = 'none', 0.0

    def tell(self, order: str) -> None:
        """``NAME [NUMBER]``, see the module. An order replaces the one before."""
        name, _, number = order.partition(' ')
        if name != 'none' and name not in DEEDS:
            print(f'no such fault: {name}', flush=True)
            return
        with self._lock:
            self._name, self._number = name, float(number or 1)
        print(f'told: {order}', flush=True)

    def strike(self, place: str) -> None:
        """Fail, if it is time to fail at this place: predictor, decoder or camera."""
        with self._lock:
            name, number = self._name, self._number
            if name == 'none' or DEEDS[name][0] != place:
                return
            self._number = 0.0 if name == 'hang' else number - 1
            if self._number <= 0:
                self._name = 'none'
        print(f'injected: {name}', flush=True)
        DEEDS[name][1](number)


ORDERS = Orders()


def _before(call: Callable[..., Any], place: str) -> Callable[..., Any]:
    def faulty(*arguments: Any, **named: Any) -> Any:
        ORDERS.strike(place)
        return call(*arguments, **named)

    return faulty


def _load(settings: dict[str, Any]) -> Any:
    predictor: Any = load_predictor(settings)
    predictor.predict = _before(predictor.predict, 'predictor')
    predictor.network.decode = _before(predictor.network.decode, 'decoder')
    return predictor


class FaultyNode(node.VGGTNode):
    """Everything but what fails is the real node."""

    def __init__(self) -> None:
        super().__init__(load=_load)
        self.create_subscription(String, '~/fault', self._on_fault, 10)

    def _on_fault(self, message: String) -> None:
        ORDERS.tell(message.data)


def main() -> int:
    """Run the node as its own ``main`` does."""
    node.VGGTNode = FaultyNode  # type: ignore[misc, assignment]
    Pipeline.look = _before(Pipeline.look, 'camera')  # type: ignore[method-assign]
    return node.main()


if __name__ == '__main__':
    sys.exit(main())
