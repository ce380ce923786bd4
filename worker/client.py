"""What producers and gateways written in Python use.

Owns: `SignalClient`: send a request, wait for its outcome.
Must not know: how workers work.
Invariant: a request is sent under an id of the caller's, so that sending it again after a lost reply never asks twice.
"""

import time
import uuid
from collections.abc import Sequence
from datetime import date, datetime
from types import TracebackType
from typing import Self

from contracts import Heartbeat, Rejection, SignalRequest, SignalVector, StreamNames
from contracts.codec import decode, encode
from worker.errors import RequestTimeout
from worker.server import connect, pairs_of, say, translated

#: Pause between two looks for an outcome, in seconds: short at first, since an answer takes milliseconds.
_LOOKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class SignalClient:
    """A producer's connection; not safe to share between threads."""

    def __init__(self, redis_url: str, *, namespace: str = "signals") -> None:
        """Connect on first use."""
        self._client = connect(redis_url, "signal-client")
        self._names = StreamNames(namespace)

    def __enter__(self) -> Self:
        """Return this client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def submit(
        self,
        strategy: str,
        symbols: Sequence[str] | None = None,
        *,
        as_of: date | datetime | str | None = None,
        request_id: str | None = None,
        **options: object,
    ) -> str:
        """Send a request.

        Args:
            strategy: Which model to ask.
            symbols: None for the model's universe.
            as_of: None for the latest complete session.
            request_id: Yours, to send the same request again without asking twice; None for a new one.
            options: Further fields of `SignalRequest`.

        Returns:
            The request id.

        Raises:
            StreamUnavailable: The server is away, or its reply was lost; send again under the same id.
            pydantic.ValidationError: The fields are no request.
        """
        request = SignalRequest.model_validate(
            {
                "request_id": request_id or str(uuid.uuid4()),
                "strategy": strategy,
                "symbols": None if symbols is None else tuple(symbols),
                "as_of": as_of,
                **options,
            }
        )
        with translated():
            self._client.xadd(self._names.requests, encode(request))  # type: ignore[arg-type]  # the driver's dict is invariant
        return request.request_id

    def outcome(self, request_id: str) -> SignalVector | Rejection | None:
        """Return the outcome of a request as it stands on its stream; None if there is none yet.

        Raises:
            StreamUnavailable: The server is away.
        """
        with translated():
            state, stream, entry = self._client.hmget(self._names.request(request_id), "state", "stream", "entry")
            if entry is None or stream is None:
                return None
            rows = say(self._client, "XRANGE", stream, entry, entry, "COUNT", 1)
        if not rows:
            return None
        _, flat = rows[0]
        pairs = pairs_of(flat)
        return decode(SignalVector, pairs) if state == b"done" else decode(Rejection, pairs)

    def workers(self) -> list[Heartbeat]:
        """Return the heartbeat of every living worker, by name.

        Raises:
            StreamUnavailable: The server is away.
        """
        with translated():
            keys = sorted(self._client.scan_iter(match=self._names.worker("*")))
            beats = [say(self._client, "HGETALL", key) for key in keys]
        return [decode(Heartbeat, tuple(fields.items())) for fields in beats if fields]

    def result(self, request_id: str, *, timeout: float) -> SignalVector | Rejection:
        """Return the outcome of a request, waiting for it.

        Args:
            request_id: As `submit` returned it.
            timeout: Longest wait, in seconds.

        Raises:
            RequestTimeout: There is none yet; the request stays valid.
            StreamUnavailable: The server is away.
        """
        end = time.monotonic() + timeout
        looks = 0
        while (found := self.outcome(request_id)) is None:
            if time.monotonic() >= end:
                raise RequestTimeout(f"request {request_id} has no outcome after {timeout} s; is a worker running?")
            time.sleep(_LOOKS[min(looks, len(_LOOKS) - 1)])
            looks += 1
        return found
