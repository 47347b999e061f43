"""The interface as OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0): the inputs and answers of each path."""

from collections.abc import Mapping
from typing import Any

import jaxcnn
from jaxcnn.serve.receive import ARRAY, FORM, RAW, Limits

_TEXT = {"type": "string"}
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_LABEL = {
    "type": "object",
    "required": ["label", "probability"],
    "properties": {"label": _TEXT, "probability": _PROBABILITY},
}
CODES = {
    "401": "There is a token, and it was not sent.",
    "404": "There is no network of this name.",
    "408": "The body did not arrive in time.",
    "413": "Too many bytes or images.",
    "415": "Another content type; the answer names those that are read.",
    "422": "An image, array or form that cannot be read.",
    "429": "Too many images are under way; try again after the seconds of Retry-After.",
    "500": "The server failed.",
    "503": "There are too many connections; try again after the seconds of Retry-After.",
    "504": "There is a deadline, and the answer was not ready by then.",
}


def document(tasks: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    """The OpenAPI description of a server.

    Args:
      tasks: task of each network, by its name.
      limits: what a client may send.
    """
    name = {
        "name": "name", "in": "path", "required": True, "description": "Name of a network.",
        "schema": {"type": "string", "enum": list(tasks)},
    }  # fmt: skip
    secured: dict[str, Any] = {"security": [{"token": []}]} if limits.token else {}
    schemes = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if limits.token else {}
    first, named = _predict(limits) | secured, _predict(limits) | secured
    facts = {"$ref": "#/components/schemas/Network"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "jaxcnn", "version": jaxcnn.__version__, "description": "Trained networks answer images."},
        "paths": {
            "/predict": {"post": first | {"operationId": "predict", "summary": f"Answers of {next(iter(tasks))}."}},
            "/models/{name}/predict": {
                "parameters": [name],
                "post": named | {"operationId": "predictBy", "summary": "Answers of the network of this name."},
            },
            "/models": _get("networks", "The networks.", _json({"type": "array", "items": facts})),
            "/models/{name}": {"parameters": [name]}
            | _get("networkOf", "One network.", _json(facts), {"404": _error(CODES["404"])}),
            "/model": _get("network", f"The network {next(iter(tasks))}.", _json(facts)),
            "/health": _get("health", "The process lives.", {"text/plain": {"schema": _TEXT}}),
            "/ready": _get(
                "ready",
                "It admits requests.",
                {"text/plain": {"schema": _TEXT}},
                {
                    "503": _FULL
                    | {
                        "description": f"It is stopping (text). {CODES['503']}",
                        "content": _FULL["content"] | {"text/plain": {"schema": _TEXT}},
                    }
                },
            ),
            "/metrics": _get("metrics", "Counters for Prometheus.", {"text/plain": {"schema": _TEXT}}),
        },
        "components": {"schemas": _schemas(set(tasks.values()))} | schemes,
    }


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _error(why: str) -> dict[str, Any]:
    return {"description": why, "content": _json({"$ref": "#/components/schemas/Error"})}


_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
_FULL = _error(CODES["503"]) | {"headers": _AFTER}  # on every path
_MALFORMED = {"description": "This is no request of HTTP.", "content": {"text/plain": {"schema": _TEXT}}}


def _get(name: str, what: str, content: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    responses = {"200": {"description": what, "content": content}, "400": _MALFORMED, "503": _FULL} | (others or {})
    return {"get": {"operationId": name, "summary": what, "responses": responses}}


def _predict(limits: Limits) -> dict[str, Any]:
    binary: dict[str, Any] = {}  # bytes in OpenAPI 3.1
    form = {
        "type": "object",
        "properties": {"image": {"type": "array", "maxItems": limits.images, "items": binary}},
        "description": "Each part is an image, whatever its name.",
    }
    never = {*(() if limits.token else ("401",)), *(() if limits.deadline else ("504",))}
    errors = {code: _error(why) for code, why in CODES.items() if code not in never}
    errors |= {"400": _MALFORMED, "429": errors["429"] | {"headers": _AFTER}, "503": _FULL}
    answer = {"$ref": "#/components/schemas/Answer"}
    each = {"oneOf": [answer, {"$ref": "#/components/schemas/Error"}]}
    return {
        "description": (
            "One image (JPEG, PNG, WebP, ...) or one array [H, W, C] is answered by an object; a form of images, or an "
            "array [N, H, W, C], by a list in their order. In a list, an image that cannot be read has its error in "
            f"its place. At most {limits.body:,} bytes for an image, {limits.whole:,} bytes and {limits.images} images "
            "for a request."
        ),
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": binary},
                RAW: {"schema": binary},
                ARRAY: {"schema": binary},
                FORM: {"schema": form},
            },
        },
        "responses": {
            "200": {
                "description": "The answer, or a list of them.",
                "content": _json({"oneOf": [answer, {"type": "array", "items": each}]}),
            }
        }
        | errors,
    }


def _schemas(tasks: set[str]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "type": "object",
        "not": {"required": ["error"]},
        "description": "By the task of the network.",
    }
    if tasks == {"classification"}:
        top = {"type": "array", "items": {"$ref": "#/components/schemas/Label"}}
        answer = {
            "type": "object",
            "required": ["label", "probability", "top"],
            "properties": {"label": _TEXT, "probability": _PROBABILITY, "top": top},
            "description": "The most probable class, and those after it.",
        }
    shape = {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}
    network = {
        "name": _TEXT,
        "model": _TEXT,
        "step": {"type": "integer"},
        "task": _TEXT,
        "class_names": {"type": "array", "items": _TEXT},
        "image_shape": shape | {"description": "Height, width, channels."},
        "temperature": {"type": "number", "description": "By which logits were divided; 1 for other tasks."},
    }
    return {
        "Answer": answer,
        "Label": _LABEL,
        "Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
        "Network": {
            "type": "object",
            "required": [name for name in network if name != "temperature"],
            "properties": network,
        },
    }
