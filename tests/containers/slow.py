"""A slow network before a server: `python slow.py PORT SERVER SERVER_PORT MILLISECONDS`.

What a client sends is passed on after the delay, what the server answers at once. The standard
library alone, since it runs in the worker's image.
"""

import asyncio
import sys


async def serve(port: int, server: str, server_port: int, seconds: float) -> None:
    """Pass connections on until the process is ended."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server, from_server = await _open(server, server_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            _pass_on(reader, from_server, seconds), _pass_on(to_server, writer, 0.0)
        )

    listening = await asyncio.start_server(meet, "0.0.0.0", port)
    async with listening:
        await listening.serve_forever()


async def _open(server: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(server, port)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    try:
        while data := await reader.read(65_536):
            await asyncio.sleep(seconds)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other end went: so does this one
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) / 1000))
