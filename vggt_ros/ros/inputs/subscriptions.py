"""What every subscription to a sensor has in common: it asks for what its publishers offer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from vggt_ros.ros import compat
from vggt_ros.ros.cdr import kind_of
from vggt_ros.ros.parameters import OptionError
from vggt_ros.ros.problems import Problems

# Messages that DDS keeps in mode every_frame until the executor takes them, which is as soon as they come: they go into
# a queue of ours, whose bytes are bounded. Of images, of all else.
IMAGES_WAIT, OTHERS_WAIT = 32, 100

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
AS_OFFERED = 'as_offered'  # default of the parameter qos_overrides./TOPIC.subscription.reliability
ASKED = {'reliable': RELIABLE, 'best_effort': BEST_EFFORT, AS_OFFERED: None}  # what it may say
STATUS = 'vggt_ros/msg/Status'
COMPRESSED = '/compressed'  # how image_transport names the topic beside the raw one


@dataclass(eq=False)
class _Wanted:
    """One topic. images: come serialized. latched: see ``add``. subscription: None while we do not listen."""

    kind: type
    topic: str
    callback: Callable[[Any], None]
    depth: int
    group: CallbackGroup | None
    images: bool = False
    latched: bool = False
    subscription: Subscription | None = None

    @property
    def type_name(self) -> str:
        """As the graph has it: 'sensor_msgs/msg/Image'."""
        return kind_of(self.kind)


class Subscriptions:
    """Subscriptions that come and go together; for any thread.

    Best effort meets every driver. In mode every_frame, where nothing shall be lost, we are as reliable as all who
    publish: a reliable subscription hears nothing of a best-effort publisher, of a player of most bags for one. What
    the user overrides comes before either. settings: the node's parameters by name.
    """

    def __init__(self, node: Node, settings: dict[str, Any], problems: Problems) -> None:
        self._node, self._problems = node, problems
        self._every_frame = settings['mode'] == 'every_frame'
        self._wanted: list[_Wanted] = []
        self._paused = False
        self._lock = threading.RLock()

    def add(
        self,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        depth: int,
        group: CallbackGroup | None,
        latched: bool = False,
    ) -> None:
        """Subscribe to a relative topic. depth: messages that wait for the callback in live mode.

        latched: also what was sent before we came, where all publishers keep it for latecomers (transient local).
        """
        depth = max(depth, OTHERS_WAIT) if self._every_frame else depth
        self._add(_Wanted(kind, topic, callback, depth, group, latched=latched))

    def add_images(
        self, kind: type, topic: str, callback: Callable[[bytes], None], depth: int, group: CallbackGroup | None
    ) -> None:
        """Images: the callback gets them serialized. While paused nobody listens, for they are dear to receive."""
        depth = IMAGES_WAIT if self._every_frame else depth
        self._add(_Wanted(kind, topic, callback, depth, group, images=True))

    def publishers(self) -> list[str]:
        """Names of the nodes that publish our images."""
        with self._lock:
            return [_name(info) for wanted in self._wanted if wanted.images for info in self._offers(wanted)]

    def match(self) -> None:
        """Now and then: subscribe as it is offered by now, and report what is wrong with those who publish."""
        with self._lock:
            for wanted in self._wanted:
                if wanted.subscription is None:
                    continue
                offers, has = self._offers(wanted), wanted.subscription.qos_profile
                qos = self._fitting(wanted, offers)
                if offers and (qos.reliability, qos.durability) != (has.reliability, has.durability):
                    self._close(wanted)
                    self._open(wanted)
                    how = f'{qos.reliability.short_key}, {qos.durability.short_key}'
                    words = f'{self._full(wanted)} is published by {_names(offers)}: subscribed {how} now'
                    self._node.get_logger().info(words)
                self._judge(wanted, offers, qos.reliability)

    def _judge(self, wanted: _Wanted, offers: Sequence[TopicEndpointInfo], asked: ReliabilityPolicy) -> None:
        """Report what keeps us from hearing one camera's images."""
        topic = self._full(wanted)
        unheard = [info for info in offers if info.qos_profile.reliability is BEST_EFFORT]
        if unheard and asked is RELIABLE:
            words = f'{_names(unheard)} publish {topic} best effort, which a reliable subscription does not hear'
            self._problems.report(f'QoS of {topic}', f'{words}: see qos_overrides.{topic}.subscription.reliability')
        if not wanted.images:
            return
        if len(offers) > 1:
            words = f'{topic} has {len(offers)} publishers, {_names(offers)}: the images of one camera are wanted'
            self._problems.report(f'publishers of {topic}', words)
        if offers:
            return
        other = topic.removesuffix(COMPRESSED) if topic.endswith(COMPRESSED) else topic + COMPRESSED
        for name in (topic, other):
            for info in self._node.get_publishers_info_by_topic(name):
                words = f'nobody publishes {wanted.type_name} on {topic}, but {_name(info)} {info.topic_type} on {name}'
                self._problems.report(f'publishers of {topic}', f'{words}: see image_transport and the remapping')
                return
        if elsewhere := self._elsewhere(wanted):
            words = f'nobody publishes {topic}; there are images on {", ".join(elsewhere)}'
            self._problems.report(f'publishers of {topic}', f'{words}: see the remapping')

    def _elsewhere(self, wanted: _Wanted) -> list[str]:
        """Other topics on which others publish what is wanted; outputs of nodes such as we are none."""
        topics = self._node.get_topic_names_and_types()
        outputs = tuple(name.removesuffix('status') for name, kinds in topics if STATUS in kinds)
        return [
            name
            for name, kinds in topics
            if wanted.type_name in kinds and not name.startswith(outputs) and self._node.count_publishers(name)
        ]

    def pause(self, paused: bool) -> None:
        """While paused we do not listen to images."""
        with self._lock:
            if paused == self._paused:
                return
            self._paused = paused
            for wanted in self._wanted:
                if wanted.images:
                    (self._close if paused else self._open)(wanted)

    def close(self) -> None:
        """Unsubscribe from everything."""
        with self._lock:
            while self._wanted:
                self._close(self._wanted.pop())
            self._paused = False

    def _add(self, wanted: _Wanted) -> None:
        with self._lock:
            self._wanted.append(wanted)
            self._open(wanted)

    def _open(self, wanted: _Wanted) -> None:
        if self._paused and wanted.images:
            return
        qos = self._fitting(wanted, self._offers(wanted))
        events = compat.subscription_events()
        options: dict[str, Any] = {
            'callback_group': wanted.group,
            'qos_overriding_options': QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)),
            'raw': wanted.images,
        }
        callback = self._problems.shield(self._full(wanted), wanted.callback, lambda: not self._node.context.ok())
        subscribe = partial(self._node.create_subscription, wanted.kind, wanted.topic, callback, qos, **options)
        try:
            on_incompatible = events.SubscriptionEventCallbacks(incompatible_qos=lambda event: self.match())
            wanted.subscription = subscribe(event_callbacks=on_incompatible)
        except events.UnsupportedEventTypeError:
            wanted.subscription = subscribe()  # a middleware that tells nothing: `match` will find out

    def _close(self, wanted: _Wanted) -> None:
        if wanted.subscription is not None:
            self._node.destroy_subscription(wanted.subscription)
        wanted.subscription = None

    def _offers(self, wanted: _Wanted) -> list[TopicEndpointInfo]:
        """Who publishes what we can read."""
        infos = self._node.get_publishers_info_by_topic(wanted.topic)
        return [info for info in infos if info.topic_type == wanted.type_name]

    def _full(self, wanted: _Wanted) -> str:
        return self._node.resolve_topic_name(wanted.topic)

    def _fitting(self, wanted: _Wanted, offers: Sequence[TopicEndpointInfo]) -> QoSProfile:
        """What to ask of these publishers. Raises OptionError."""
        reliability = self._overridden(wanted)
        lossless = all(info.qos_profile.reliability is RELIABLE for info in offers)
        kept = all(info.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL for info in offers)
        latched = wanted.latched and bool(offers) and kept and lossless and reliability is not BEST_EFFORT
        if reliability is None:
            reliability = RELIABLE if latched or (self._every_frame and lossless) else BEST_EFFORT
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        return QoSProfile(depth=wanted.depth, reliability=reliability, durability=durability)

    def _overridden(self, wanted: _Wanted) -> ReliabilityPolicy | None:
        """What the user says; None: as it is offered. Raises OptionError where that is nothing.

        The parameter is not rclpy's, which would remember what was asked for first as the user's wish.
        """
        name = f'qos_overrides.{self._full(wanted)}.subscription.reliability'
        if not self._node.has_parameter(name):
            words = f'reliable, best_effort, or {AS_OFFERED}: best_effort in mode live, what all publishers offer else'
            self._node.declare_parameter(name, AS_OFFERED, ParameterDescriptor(description=words, read_only=True))
        chosen = self._node.get_parameter(name).value.lower()
        if chosen not in ASKED:
            raise OptionError(f'{name}: {chosen!r} is not one of {", ".join(ASKED)}')
        return ASKED[chosen]


def _name(info: TopicEndpointInfo) -> str:
    if 'UNKNOWN' in info.node_name:  # rmw's word for a publisher that is known before its node
        return 'a node without a name yet'
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


def _names(infos: Sequence[TopicEndpointInfo]) -> str:
    return ', '.join(map(_name, infos))
