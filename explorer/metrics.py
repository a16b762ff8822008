"""What the explorer counts for Prometheus, in a registry of each app: how much is asked, how long it takes."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorer.prefix import below

# What an alert counts.
OUR_ERRORS = (500, 503)
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The figures of one app, all named `lookalike_explorer_…`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: set[tuple[str, str]] = set()
        self.requests = Counter(
            "lookalike_explorer_requests",
            "Requests, by route as it is written in the API's description.",
            ("method", "route", "code"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "lookalike_explorer_request_seconds",
            "Time from a request to the end of its answer.",
            ("route",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.pictures = Counter(
            "lookalike_explorer_pictures",
            "Pictures that were searched with, by how they came and what became of them.",
            ("way", "outcome"),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "lookalike_explorer_pictures_waiting",
            "Searches with a picture that are under way or wait.",
            registry=self.registry,
        )

    def count(self, method: str, route: str, code: int) -> None:
        """One request more. With the first of a route its errors of ours stand at 0: a series that is born with 1 has
        never grown.
        """
        if (method, route) not in self._known:
            self._known.add((method, route))
            for error in OUR_ERRORS:
                self.requests.labels(method, route, error)
        self.requests.labels(method, route, code).inc()


class Measured:
    """The middleware that counts requests; plain ASGI because every request passes it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, api: str) -> None:
        self._app = app
        self._api = api
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        code = 500

        async def noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = self._route(scope)
            self._metrics.count(_method(scope), route, code)
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _route(self, scope: Scope) -> str:
        """The route as it is written, of which there are few; FastAPI leaves out what its router is put under."""
        route = str(getattr(scope.get("route"), "path", "none"))
        is_api = below(scope).startswith(f"{self._api}/") and route.startswith("/")
        return route if not is_api or route.startswith(self._api) else self._api + route


def _method(scope: Scope) -> str:
    """The method, of those that anybody may invent only the known ones."""
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
