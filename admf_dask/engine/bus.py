"""`EventBus`: typed events to handlers, in the order of registration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EventBus:
    """Delivers each published event to the handlers of its type, at once, in the order they were registered.

    An error of a handler is not swallowed: it reaches who published, with the event in a note, and the handlers after it are not
    called. Not thread-safe: a backtest is one thread.
    """

    def __init__(self) -> None:
        """Without handlers."""
        self._handlers: dict[type, list[Callable[[Any], None]]] = {}

    def subscribe(self, kind: type, handler: Callable[[Any], None]) -> None:
        """Call `handler(event)` for each event of exactly this type."""
        if not isinstance(kind, type):
            raise TypeError(
                f"events are subscribed to by their class, but got {kind!r:.60}; write bus.subscribe(BarEvent, handler)"
            )
        self._handlers.setdefault(kind, []).append(handler)

    def unsubscribe(self, kind: type, handler: Callable[[Any], None]) -> None:
        """Call it no more. Raises ValueError if it was not subscribed."""
        if handler not in self._handlers.get(kind, ()):
            raise ValueError(f"{handler!r:.60} is not subscribed to {kind.__name__}")
        self._handlers[kind].remove(handler)

    def publish(self, event: Any) -> None:
        """Deliver an event; returns when all handlers have."""
        try:
            for handler in self._handlers.get(type(event), ()):
                handler(event)
        except Exception as error:
            note = f"while {event!r} was handled"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise

    def reset(self) -> None:
        """Forget all handlers."""
        self._handlers.clear()
