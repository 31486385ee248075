"""The sandbox on a socket: a request is recorded and answered by a script, a limit, a fault or the API."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from syncd.sandbox import answers, control
from syncd.sandbox.faults import Action, FaultName
from syncd.sandbox.sandbox import Request, Sandbox
from syncd.sandbox.wire import CONTROL, LOGIN
from syncd.urls import is_loopback


@asynccontextmanager
async def serve(sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Sandbox]:
    """Serve a sandbox on loopback while the context lasts; port 0 selects a free port.

    Raises
    ------
    ValueError
        The host is not loopback: the control paths require no token.
    OSError
        The port is in use.
    """
    if not is_loopback(host):
        raise ValueError(f"the sandbox serves on loopback only, not on {host!r}")
    server = web.Server(RequestHandler(sandbox).handle, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        shown = f"[{host}]" if ":" in host else host
        sandbox.url = f"http://{shown}:{runner.addresses[0][1]}"
        yield sandbox
    finally:
        sandbox.url = None
        await runner.cleanup()


class RequestHandler:
    """Handles a request: records it, applies scripts, limits and faults, and calls the API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, or break its connection."""
        if request.raw_path.startswith(CONTROL):
            return await control.answer(self._sandbox, request)
        sandbox = self._sandbox
        record = Request(request.method, request.raw_path, sandbox.now())
        if sandbox.record_requests:
            sandbox.requests.append(record)
        response = await self._respond(request)
        if response is None:
            # The client receives a reset; aiohttp handles the write that follows like any write to a closed connection.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        record.status = response.status
        return response

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Return the answer; None if the connection is to be broken."""
        sandbox, habits = self._sandbox, self._sandbox.habits
        if habits.latency:
            await sandbox.sleep(habits.latency)
        action = sandbox.scripts.take(request)
        if action is not None:
            return await self._perform(action, request)
        wait = sandbox.bucket.wait(habits.rate_limit)
        if wait:
            return answers.retry_later(habits, 429, wait, sandbox.now())
        if sandbox.faults.login or not request.raw_path.startswith(LOGIN):
            fault = sandbox.faults.draw(request.method, sandbox.rng)
            if fault is not None:
                return await self._perform(fault, request)
        return await sandbox.api.answer(request, habits)

    async def _perform(self, action: Action, request: web.BaseRequest) -> web.StreamResponse | None:
        if callable(action):
            answered = action(request)
            if inspect.isawaitable(answered):
                answered = await answered
            return answered or await self._sandbox.api.answer(request, self._sandbox.habits)
        if isinstance(action, int):
            return answers.problem(self._sandbox.habits, action, f"scripted {action}")
        if action in ("lost_before", "hang_before", "error_500", "error_503_retry_after", "forbidden", "gateway_404"):
            return await self._fail_before_effect(action)
        return await self._fail_after_effect(action, request)

    async def _fail_before_effect(self, fault: FaultName) -> web.StreamResponse | None:
        """Apply a fault before the request has an effect."""
        habits, faults = self._sandbox.habits, self._sandbox.faults
        if fault == "hang_before":
            await asyncio.Event().wait()
        if fault == "error_500":
            return answers.problem(habits, 500, "Internal server error")
        if fault == "forbidden":
            return answers.problem(habits, 403, "Forbidden")
        if fault == "gateway_404":
            return answers.gateway()
        if fault == "error_503_retry_after":
            return answers.retry_later(habits, 503, faults.retry_after, self._sandbox.now())
        return None

    async def _fail_after_effect(self, fault: FaultName, request: web.BaseRequest) -> web.StreamResponse | None:
        """Apply a fault after the request had its effect."""
        habits = self._sandbox.habits
        response = await self._sandbox.api.answer(request, habits)
        if fault == "hang_after":
            await asyncio.Event().wait()
        if fault == "slow":
            await self._sandbox.sleep(self._sandbox.faults.slow_seconds)
            return response
        if fault == "error_500_after":
            return answers.problem(habits, 500, "Internal server error")
        if fault == "garbled":
            return answers.garbled()
        if fault == "cut":
            return await answers.cut(request, response)
        return None
