"""Answer images over HTTP: `python -m jaxcnn.serve --workdir=runs/resnet50 --port=8000`.

    curl --data-binary @cat.jpg -H 'content-type: image/jpeg' http://127.0.0.1:8000/predict
    curl -F image=@cat.jpg -F image=@dog.png http://127.0.0.1:8000/predict

POST /predict: an image, an array of NumPy (.npy), or a form of images; the answer is JSON. GET /: a page to drop images
on; /docs: the whole interface, as OpenAPI under /openapi.json. GET /models, /health, /ready, /metrics (Prometheus).
Images that come together are answered together. Above --max_requests images under way, a request gets 429 with
Retry-After. With JAXCNN_SERVE_TOKEN in the environment, clients send it as a bearer token.

--file=resnet50.onnx without --workdir answers by a file alone, whose facts tell the rest.

--model=small=runs/resnet20, which may be repeated, serves more networks: POST /models/small/predict. In place of the
folder of a run, the path may be an exported file in it, such as runs/resnet20/model.int8.onnx.

SIGTERM or SIGINT: no request is admitted any more, those under way are answered, and the exit code is 0.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import asyncio
import os
import sys
from typing import Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import unused
from jaxcnn.machine import extras
from jaxcnn.serve import models

NETWORK = chosen.define()
FILE = command.define_path(
    "file", "", "Answer by this file of jaxcnn.export or jaxcnn.compress, in place of the run; without --workdir alone."
)
RUNTIME = flags.DEFINE_enum("runtime", "onnxruntime", ["onnxruntime", "jax"], "Runtime for files of ONNX.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all, which lets others in.")
PORT = flags.DEFINE_integer("port", 8000, "Port; 0: a free one.", lower_bound=0, upper_bound=models.MOST_PORT)
MOST = flags.DEFINE_integer("batch", 32, "Largest batch, images.", lower_bound=1, upper_bound=models.MOST_BATCH)
WAIT = flags.DEFINE_float("max_wait_ms", 2.0, "Longest time that an image waits for others, ms.", lower_bound=0.0)
MODELS = flags.DEFINE_multi_string("model", [], "A network beside --workdir: <name>=<folder of a run>; repeatable.")
REQUESTS = flags.DEFINE_integer("max_requests", 256, "Maximum number of images under way at once.", lower_bound=1)
BYTES = flags.DEFINE_float("max_mib", 16.0, "Maximum size of an image, MiB.", lower_bound=0.001)
MEGAPIXELS = flags.DEFINE_float("max_megapixels", 50.0, "Maximum size of an image, megapixels.", lower_bound=0.001)
SECONDS = flags.DEFINE_float("body_seconds", 10.0, "Seconds in which a request must arrive.", lower_bound=0.01)
DEADLINE = flags.DEFINE_float(
    "deadline_ms", 0.0, "Longest time from a whole request to its answer, ms; 0: any.", lower_bound=0.0
)
IMAGES = flags.DEFINE_integer("max_images", 64, "Maximum number of images in a request.", lower_bound=1)
WHOLE = flags.DEFINE_float("max_request_mib", 64.0, "Maximum size of a request of many images, MiB.", lower_bound=0.001)
LOG = flags.DEFINE_enum("log", "", ["", "json"], "Write a line of JSON for each request to standard output.")
TOKEN = "JAXCNN_SERVE_TOKEN"
SWITCH_SECONDS = 0.0005  # between switches of threads: many refusals would otherwise slow down admitted images


def main() -> int:
    """Serve until a signal; return the exit code."""
    places = models.places(NETWORK.workdir.value or "", FILE.value, MODELS.value)  # before heavy imports
    if not any(place.file and place.file.suffix == ".onnx" for place in places):
        unused.refuse(["runtime"], "is for a .onnx file, of --file or --model")
    if not any(place.folder for place in places):
        unused.refuse(("checkpoint", "weights"), "is for the folder of a run")
    extras.need("serve", "jaxcnn.serve")
    from jaxcnn.serve import connections

    host = HOST.value or "127.0.0.1"
    sockets = connections.taken(host, PORT.value or 0)  # before the networks are loaded, which takes time
    from jaxcnn.serve import running
    from jaxcnn.serve.app import Interface, Limits
    from jaxcnn.serve.request_log import RequestLog

    services = {place.name: _service(place) for place in places}
    command.interrupts().enter("compile")
    for service in services.values():
        service.warm_up()
    most, body = REQUESTS.value or 1, int((BYTES.value or 1.0) * 2**20)
    limits = Limits(
        body=body,
        seconds=SECONDS.value or 1.0,
        requests=most,
        wait=(WAIT.value or 0.0) / 1000,
        token=os.environ.get(TOKEN, ""),
        images=min(IMAGES.value or 1, most),
        whole=max(body, min(int((WHOLE.value or 1.0) * 2**20), most * body)),
        deadline=(DEADLINE.value or 0.0) / 1000,
    )
    command.interrupts().enter("serve")
    sys.setswitchinterval(SWITCH_SECONDS)
    interface = Interface(services, limits, RequestLog(sys.stdout) if LOG.value else None)
    asyncio.run(
        running.serve(
            interface,
            sockets,
            limits.seconds,
            most,
            lambda address: print(f"jaxcnn: answers on {address}", flush=True),
            lambda: bool(command.interrupts().received),
        )
    )
    return 0


def _service(place: models.Place) -> Any:
    from jaxcnn.deploy import runtimes
    from jaxcnn.serve.service import Service

    if place.folder is None and place.file is not None and place.file.suffix in runtimes.WEIGHTS:
        from jaxcnn.learn import executables
        from jaxcnn.train import of_facts

        executables.keep()
        return Service(of_facts.read(place.file)[0], MOST.value or 1, MEGAPIXELS.value or 1.0)
    file = runtimes.of_file(place.file, in_jax=RUNTIME.value == "jax") if place.file else None
    if file is not None and (words := runtimes.of_int8(file)):
        print(f"jaxcnn: {place.name}: {words}")
    if place.folder is None and file is not None:
        from jaxcnn.text import shown
        from jaxcnn.train import of_facts

        network = of_facts.of(file.facts, shown(str(place.file)))
    else:
        network = NETWORK.load(folder=place.folder)
    return Service(network, MOST.value or 1, MEGAPIXELS.value or 1.0, file)


if __name__ == "__main__":
    command.run(main)
