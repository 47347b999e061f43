"""The meeting of a run's processes at the coordinator's port, where they exchange host, versions and config.

Anything that can reach the port can write to it. So a message is accepted only in the required form and, if the
environment has a token ($JAXCNN_TOKEN, made by launchers), only with a proof that its sender has the same token.
"""

import dataclasses
import hashlib
import hmac
import ipaddress
import json
import logging
import math
import os
import platform
import socket
import time
import zlib
from typing import Any

from jaxcnn.config import Hosts, UserError
from jaxcnn.machine import extras
from jaxcnn.machine.heartbeat import RESTARTABLE, Heartbeat
from jaxcnn.machine.messages import read_line, send

VERSIONS = ("jaxcnn", "jax", "jaxlib")
TOKEN = "JAXCNN_TOKEN"
CARD_SECONDS = 5.0  # time for a new connection to send its card, while others wait
CARD_BYTES = 2**16
ROSTER_BYTES = 2**26
_PROOF = "proof"
_log = logging.getLogger("jaxcnn")


class HostsError(UserError):
    """Raised when the processes could not join; the same command may succeed when started again."""

    exit_code = RESTARTABLE


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of this process among those of a run, as given by its launcher.

    Attributes:
      launcher: as in `config.hosts.join`.
      coordinator: <host>:<port> of process 0.
      processes, process: number of processes, and number of this one.
    """

    launcher: str
    coordinator: str
    processes: int
    process: int


def meet(place: Place, wanted: Hosts, fingerprint: object = None, run: str = "", token: str | None = None) -> Heartbeat:
    """Meet the other processes of `run` at the coordinator's port; the connections to process 0 stay open.

    Args:
      place: place of this process.
      wanted: the group `hosts` of the config.
      fingerprint: plain values that must be equal in all processes.
      run: identifies the run.
      token: secret shared by the processes; None: the one of the environment; empty: none.

    Raises:
      HostsError: not all processes came in time.
      UserError: a process has other versions, another `fingerprint`, or not all processes have a token.
    """
    card = {
        "process": place.process,
        "processes": place.processes,
        "run": run,
        "host": platform.node(),
        "pid": os.getpid(),
        "clock": time.time(),
        "versions": {name: extras.version(name) or "absent" for name in VERSIONS}
        | {"python": platform.python_version()},
        "fingerprint": zlib.crc32(json.dumps(fingerprint, sort_keys=True, default=str).encode()),
    }
    deadline = time.monotonic() + wanted.join_seconds
    gather = _receive_all if place.process == 0 else _introduce
    links, roster = gather(place, card, deadline, os.environ.get(TOKEN, "") if token is None else token)
    heartbeat = Heartbeat(place.process, roster, links, wanted.heartbeat_seconds)
    _check_likeness(roster)
    return heartbeat


def _receive_all(
    place: Place, card: dict[str, Any], deadline: float, token: str
) -> tuple[dict[int, socket.socket], list[Any]]:
    """Process 0: receive the cards of all others, then send all cards to everyone."""
    links: dict[int, socket.socket] = {}
    cards = {0: card}
    told: set[str] = set()
    try:
        listener = _listen(place.coordinator)
    except OSError as error:
        port = place.coordinator.rpartition(":")[2]
        raise HostsError(
            f"{card['host']} cannot listen on the coordinator's port {port}: {error.strerror}; choose another port "
            "with JAX_COORDINATOR_PORT or config.hosts.coordinator"
        ) from error
    with listener:
        while len(cards) < place.processes:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                link, peer = listener.accept()
            except TimeoutError:
                missing = ", ".join(str(n) for n in range(place.processes) if n not in cards)
                complaint = (
                    f"of {place.processes} processes, these did not connect to {place.coordinator} within "
                    f"config.hosts.join_seconds: {missing}; check that they were started and can reach that address"
                )
                for link in links.values():
                    send(link, _proven({"error": complaint}, token))
                raise HostsError(complaint) from None
            other = read_line(link, min(CARD_SECONDS, max(deadline - time.monotonic(), 0.01)), CARD_BYTES)
            link.settimeout(CARD_SECONDS)
            if refusal := _refusal(other, card, cards, links, token):
                remark = (
                    f"something that is not a process of this run connected from {peer[0]}: {_one_line(refusal['why'])}"
                )
                if remark not in told:  # a process may try again every second
                    told.add(remark)
                    _log.warning("%s", remark)
                send(link, refusal)
                link.close()
                continue
            other["skew"] = other["clock"] - time.time()
            if (before := links.pop(other["process"], None)) is not None:  # the first attempt of this process timed out
                before.close()
            links[other["process"]] = link
            cards[other["process"]] = other
    roster = [cards[n] for n in range(place.processes)]
    for link in links.values():
        send(link, _proven({"roster": roster}, token))
    return links, roster


def own_address(coordinator: str) -> str | None:
    """The numeric address in a coordinator's `<host>:<port>`, if it is this host's; None if all addresses must be open.

    All processes connect to a numeric address, so no other is needed. A name is not resolved: this host may resolve
    its own name to a loopback address (Debian), or to another network than the others do (clusters with two networks,
    pods behind a service). An address that is not this host's belongs to a router or service that forwards to it.
    """
    host = coordinator.rpartition(":")[0]
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        with socket.socket(_family(address.version)) as probe:
            probe.bind((str(address), 0))
    except (OSError, ValueError):
        return None
    return str(address)


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _listen(coordinator: str) -> socket.socket:
    """A socket that accepts at the coordinator's port, at `own_address` or else at all addresses of this host."""
    port = int(coordinator.rpartition(":")[2])
    if (address := own_address(coordinator)) is not None:
        return socket.create_server((address, port), family=_family(ipaddress.ip_address(address).version))
    both = socket.has_dualstack_ipv6()
    return socket.create_server(("", port), family=_family(6 if both else 4), dualstack_ipv6=both)


def _refusal(
    other: Any, card: dict[str, Any], cards: dict[int, Any], links: dict[int, socket.socket], token: str
) -> dict[str, Any] | None:
    """The answer of process 0 to a process that does not belong to this run, with the reason `why`; else None."""
    here = f"process 0 on {card['host']}"
    if not _is_card(other):
        return {
            "why": "it did not introduce itself as a process",
            "stranger": f"{here} did not understand this process",
        }
    if bool(token) != (_PROOF in other):
        there = f"process {other['process']} on {other['host']}"
        has, lacks = (here, there) if token else (there, here)
        unlike = (
            f"${TOKEN} is set for {has}, but not for {lacks}; set it to the same value for all processes, or for none"
        )
        return {"why": unlike, "unlike": unlike}
    if not _is_proven(other, token):
        return {"why": f"it has a different ${TOKEN}", "stranger": f"{here} has a different ${TOKEN}"}
    if _run_of(other) != _run_of(card):
        return {"why": "it belongs to another run", "stranger": f"{here} belongs to another run: {_told(card)}"}
    process = other["process"]
    if not 0 < process < card["processes"]:
        return {"why": f"it calls itself process {process}", "stranger": f"{here} does not expect a process {process}"}
    if process in links and other["host"] != cards[process]["host"] and not _is_left(links[process]):
        there = f"process {process} is already connected, from {cards[process]['host']}"
        return {"why": there, "stranger": f"{here} says that {there}"}
    return None


def _is_card(other: Any) -> bool:
    """Whether a message has all fields of a card, with the right types."""
    kinds = {
        "process": int,
        "processes": int,
        "run": str,
        "host": str,
        "pid": int,
        "versions": dict,
        "fingerprint": int,
    }
    return (
        isinstance(other, dict)
        and all(type(other.get(name)) is kind for name, kind in kinds.items())
        and type(other.get("clock")) is float
        and math.isfinite(other["clock"])
        and all(isinstance(version, str) for version in other["versions"].values())
        and len(other["host"]) < 256
    )


def _proven(message: dict[str, Any], token: str) -> dict[str, Any]:
    """A message with the proof that its sender has the token; unchanged without a token."""
    return message | {_PROOF: _proof(message, token)} if token else message


def _is_proven(message: dict[str, Any], token: str) -> bool:
    """Whether the sender of a message has the token; compares in constant time."""
    proof = message.get(_PROOF)
    stated = proof.encode(errors="replace") if isinstance(proof, str) else b""
    return not token or hmac.compare_digest(stated, _proof(message, token).encode())


def _proof(message: dict[str, Any], token: str) -> str:
    content = json.dumps({name: value for name, value in message.items() if name != _PROOF}, sort_keys=True)
    return hmac.new(token.encode(), content.encode(), hashlib.sha256).hexdigest()


def _introduce(
    place: Place, card: dict[str, Any], deadline: float, token: str
) -> tuple[dict[int, socket.socket], list[Any]]:
    """Every other process: send the card to process 0, and wait for the cards of all."""
    host, _, port = place.coordinator.rpartition(":")
    reason = "no time"
    while (left := deadline - time.monotonic()) > 0:
        try:
            link = socket.create_connection((host.strip("[]"), int(port)), timeout=min(5.0, left))
        except OSError as error:
            reason = str(error.strerror or error)
            time.sleep(0.2)
            continue
        send(link, _proven(card | {"clock": time.time()}, token))
        # Process 0 waits until its own deadline, which may be later.
        answer = read_line(link, left + 10.0, ROSTER_BYTES)
        if not isinstance(answer, dict):
            answer = {}
        if _is_proven(answer, token) and _is_roster(answer.get("roster"), place):
            return {0: link}, answer["roster"]
        link.close()
        if "error" in answer and _is_proven(answer, token):
            raise HostsError(_one_line(answer["error"]))
        if "unlike" in answer:
            raise UserError(_one_line(answer["unlike"]))
        reason = "it answers, but is not a process of this run"
        if "stranger" in answer:
            reason = f"{_one_line(answer['stranger'])}; this run is {_told(card)}"
        time.sleep(1.0)  # process 0 may be about to end
    raise HostsError(
        f"process {place.process} on {card['host']} did not reach process 0 at {place.coordinator} within "
        f"config.hosts.join_seconds: {reason}; check that process 0 was started, that the host name can be resolved "
        "and that no firewall blocks the port (JAX_COORDINATOR_PORT sets another)"
    )


def _is_roster(roster: Any, place: Place) -> bool:
    """Whether these are the cards of all processes in process order."""
    return isinstance(roster, list) and [each["process"] for each in roster if _is_card(each)] == list(
        range(place.processes)
    )


def _run_of(card: dict[str, Any]) -> tuple[Any, Any]:
    return card.get("run"), card.get("processes")


def _told(card: dict[str, Any]) -> str:
    return f"{card['run'] or 'without --workdir'}, of {card['processes']} processes"


def _one_line(text: object) -> str:
    """Text of another process as one printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:1000]


def _check_likeness(roster: list[dict[str, Any]]) -> None:
    """Refuse processes that would not compute the same. Raises the same UserError in all of them."""
    first = roster[0]
    for card in roster[1:]:
        pair = f"process {card['process']} on {card['host']} and process 0 on {first['host']}"
        for name, version in first["versions"].items():
            if card["versions"].get(name) != version:
                raise UserError(
                    f"{pair} have {name} {card['versions'].get(name)} and {version}; install the same version"
                )
        if card["fingerprint"] != first["fingerprint"]:
            raise UserError(f"{pair} were started with different configs; start all with the same flags")


def _is_left(link: socket.socket) -> bool:
    """Whether the other end of a connection has closed it."""
    try:
        link.setblocking(False)
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        link.settimeout(CARD_SECONDS)
