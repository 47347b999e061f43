"""Answer images over HTTP: `python -m jaxcnn.serve --workdir=runs/resnet50 --port=8000`.

    curl --data-binary @cat.jpg -H 'content-type: image/jpeg' http://127.0.0.1:8000/predict

POST /predict: one image as the body; the answer is JSON. GET /: a page to drop an image on. GET /model, /health,
/ready, /metrics (Prometheus). Requests that come together are answered together. Above --max_requests under way, a
request gets 429 with Retry-After. With JAXCNN_SERVE_TOKEN in the environment, clients send it as a bearer token.

SIGTERM or SIGINT: no request is admitted any more, those under way are answered, and the exit code is 0.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import asyncio
import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.config import UserError
from jaxcnn.machine import extras

NETWORK = chosen.define()
FILE = command.define_path(
    "file", "", "Answer by this .onnx file of the run, such as one of int8, in place of the run."
)
RUNTIME = flags.DEFINE_enum("runtime", "onnxruntime", ["onnxruntime", "jax"], "Of --file.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all, which lets others in.")
PORT = flags.DEFINE_integer("port", 8000, "Port; 0: a free one.", lower_bound=0, upper_bound=65535)
MOST = flags.DEFINE_integer("batch", 32, "Most images in a batch.", lower_bound=1, upper_bound=1024)
WAIT = flags.DEFINE_float("max_wait_ms", 2.0, "Most milliseconds that an image waits for others.", lower_bound=0.0)
REQUESTS = flags.DEFINE_integer("max_requests", 256, "Most requests under way at once.", lower_bound=1)
BYTES = flags.DEFINE_float("max_mib", 16.0, "Most MiB of an image.", lower_bound=0.001)
MEGAPIXELS = flags.DEFINE_float("max_megapixels", 50.0, "Most megapixels of an image.", lower_bound=0.001)
SECONDS = flags.DEFINE_float("body_seconds", 10.0, "Seconds in which an image must arrive.", lower_bound=0.01)
TOKEN = "JAXCNN_SERVE_TOKEN"
SPARE_CONNECTIONS = 64  # for health and metrics while requests are refused


def main() -> int:
    """Serve until a signal; return the exit code."""
    NETWORK.folder()  # else refused before anything is imported
    extras.need("serve", "jaxcnn.serve")
    from jaxcnn.deploy import runtimes
    from jaxcnn.serve.app import Interface, Limits
    from jaxcnn.serve.service import Service

    network = NETWORK.load()
    file = runtimes.of_file(pathlib.Path(FILE.value), in_jax=RUNTIME.value == "jax") if FILE.value else None
    service = Service(network, MOST.value or 1, MEGAPIXELS.value or 1.0, file)
    command.interrupts().enter("compile")
    service.warm_up()
    limits = Limits(
        body=int((BYTES.value or 1.0) * 2**20),
        seconds=SECONDS.value or 1.0,
        requests=REQUESTS.value or 1,
        wait=(WAIT.value or 0.0) / 1000,
        token=os.environ.get(TOKEN, ""),
    )
    command.interrupts().enter("serve")
    asyncio.run(_serve(Interface(service, limits)))
    return 0


async def _serve(interface: Any) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to the command."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        interface.app(),
        host=HOST.value or "127.0.0.1",
        port=PORT.value or 0,
        log_level="error",
        limit_concurrency=(REQUESTS.value or 1) + SPARE_CONNECTIONS,
        timeout_keep_alive=5,
        server_header=False,
    )
    server = Server(config)
    served = asyncio.create_task(server.serve())
    told = False
    while not served.done():
        await asyncio.sleep(0.05)
        if server.started and not told:
            told = True
            address = server.servers[0].sockets[0].getsockname()
            print(f"jaxcnn: answers on http://{address[0]}:{address[1]}/", flush=True)
        if command.interrupts().received and interface.batcher is not None and not server.should_exit:
            await interface.batcher.drain()
            server.should_exit = True
    try:
        await served
    except SystemExit:
        raise UserError(f"--host={HOST.value} --port={PORT.value} cannot be listened on; choose another") from None


if __name__ == "__main__":
    command.run(main)
