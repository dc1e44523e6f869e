"""The services ``~/reset``, ``~/pause`` and ``~/resume``, from configure to cleanup."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.service import Service
from std_srvs.srv import Trigger

from vggt_ros.ros.activation import Activation


class Services:
    """active: what is at work now, None when the node is not active. notify: something new must be said."""

    def __init__(self, node: Node, active: Callable[[], Activation | None], notify: Callable[[], None]) -> None:
        self._node, self._active, self._notify = node, active, notify
        self._services: list[Service] = []
        group = MutuallyExclusiveCallbackGroup()
        for name, handler in (('reset', self._on_reset), ('pause', self._on_pause), ('resume', self._on_resume)):
            self._services.append(node.create_service(Trigger, f'~/{name}', handler, callback_group=group))

    def close(self) -> None:
        """Take them back."""
        while self._services:
            self._node.destroy_service(self._services.pop())

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        active = self._active()
        if active is None:
            response.message = 'the node is not active'
            return response
        active.begin_epoch()
        response.success, response.message = True, 'the map begins anew with the next image'
        return response

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(True, response)

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(False, response)

    def _set_paused(self, paused: bool, response: Trigger.Response) -> Trigger.Response:
        active = self._active()
        if active is None:
            response.message = 'the node is not active'
            return response
        response.message = 'paused' if paused else 'running'
        if paused == active.paused:
            response.message += ' already'
        active.pause(paused)
        self._notify()  # the status is said where everything else is published
        response.success = True
        return response
