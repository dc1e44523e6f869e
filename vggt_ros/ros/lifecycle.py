"""A lifecycle node that outlives impossible requests."""

from __future__ import annotations

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


class RefusingLifecycleNode(LifecycleNode):
    """rclpy raises from its service where a transition does not exist or cannot be now, and that ends the executor.

    Here such a request is answered: no success. For a request by label rclpy does so itself.
    """

    def _LifecycleNodeMixin__on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        label, number = request.transition.label, request.transition.id
        possible = self._state_machine.available_transitions
        if not any(one[1] == label if label else one[0] == number for one in possible):
            self.get_logger().warning(
                f'there is no transition {label or number} from {self._state_machine.current_state[1]}'
            )
            response.success = False
            return response
        return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
