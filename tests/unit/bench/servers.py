"""Small HTTP servers for the load generator's tests, closed to the last connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[bytes], Awaitable[bytes]]
"""Takes a request's head and gives the bytes of the whole response."""

CLOSE_SECONDS = 0.05
CLOSE_SECONDS_MAX = 5


@asynccontextmanager
async def http_server(answer: Answer) -> AsyncIterator[int]:
    """Serve on a free port, which this gives, until the end of the block."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                writer.write(await answer(await reader.readuntil(b"\r\n\r\n")))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        # A connection that is only being made now could not be closed.
        await asyncio.sleep(CLOSE_SECONDS)
    for writer in writers:
        writer.transport.abort()
    await nothing_left()


async def nothing_left() -> None:
    """End every other task, and let the transports close, which asyncio does not tell of."""
    await asyncio.sleep(CLOSE_SECONDS)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), CLOSE_SECONDS_MAX)
    await asyncio.sleep(CLOSE_SECONDS)
