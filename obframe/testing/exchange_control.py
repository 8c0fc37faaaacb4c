"""The requests that a client sends over the websocket, and the venue's answers. No I/O."""

from __future__ import annotations

import json
from typing import Any

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
MAX_STREAMS = 1024


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: int, message: str, request_id: int | str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id


def _dump(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def refusal(error: Refusal) -> bytes:
    """Return the answer to a request that is refused."""
    return _dump({"error": {"code": error.code, "msg": error.message}, "id": error.request_id})


class Subscriptions:
    """What one connection gets.

    Args:
        combined: Whether messages are wrapped with their stream's name.
        streams: Streams named in the URL.

    Attributes:
        combined: As given, until the client sets the property.
        streams: In order of subscription.
    """

    def __init__(self, combined: bool, streams: list[str]) -> None:
        self.combined = combined
        self.streams: dict[str, None] = dict.fromkeys(streams)

    def answer(self, text: str) -> bytes:
        """Obey one request and return the answer.

        Raises:
            Refusal: The request is not understood or asks too much; nothing changed.
        """
        method, params, request_id = _read(text)
        try:
            result = self._obey(method, params)
        except Refusal as error:
            error.request_id = request_id
            raise
        return _dump({"result": result, "id": request_id})

    def _obey(self, method: str, params: list[Any]) -> object:
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, params)
        if not params or not all(isinstance(name, str) for name in params):
            raise Refusal(2, "Invalid request: params must be a list of stream names")
        if method == "SUBSCRIBE":
            if len({*self.streams, *params}) > MAX_STREAMS:
                raise Refusal(2, f"Invalid request: over {MAX_STREAMS} streams on one connection")
            self.streams.update(dict.fromkeys(params))
        else:
            for name in params:
                self.streams.pop(name, None)
        return None

    def _property(self, method: str, params: list[Any]) -> object:
        if not params or not isinstance(params[0], str):
            raise Refusal(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise Refusal(0, "Unknown property")
        if method == "GET_PROPERTY":
            return self.combined
        if len(params) != 2 or not isinstance(params[1], bool):
            raise Refusal(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return None


def method_of(text: str) -> str:
    """Return the request's method, empty when it cannot be read."""
    try:
        return _read(text)[0]
    except Refusal:
        return ""


def id_of(text: str) -> int | str | None:
    """Return the request's id, None when it cannot be read."""
    try:
        return _read(text)[2]
    except Refusal:
        return None


def _read(text: str) -> tuple[str, list[Any], int | str | None]:
    try:
        request = json.loads(text)
    except ValueError as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise Refusal(3, f"Invalid JSON: expected value at line {line} column {column}") from error
    if not isinstance(request, dict):
        raise Refusal(3, "Invalid JSON: expected an object at line 1 column 1")
    request_id = request.get("id")
    if not _is_id(request_id):
        raise Refusal(2, "Invalid request: request ID must be an unsigned integer")
    method = request.get("method")
    if method is None:
        raise Refusal(2, "Invalid request: missing field `method`", request_id)
    if method not in METHODS:
        expected = ", ".join(f"`{name}`" for name in METHODS)
        text = f"Invalid request: unknown variant `{method}`, expected one of {expected}"
        raise Refusal(2, text, request_id)
    if request.keys() - {"method", "params", "id"}:
        raise Refusal(2, "Invalid request: too many parameters", request_id)
    params = request.get("params", [])
    if not isinstance(params, list):
        raise Refusal(2, "Invalid request: params must be a list of stream names", request_id)
    return method, params, request_id


def _is_id(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return len(value) <= 36 and value.isalnum()
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
