"""Processes agree on the step they stop at, and on how many steps a call makes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.loaders import local_rows
from tests.test_hosts import meet_all


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_signal_to_one_process_stops_all_at_the_same_call(at):
    lifelines = meet_all(3, [0, 1, 2])
    for heartbeat in lifelines:
        heartbeat.start()

    def drive(process: int) -> tuple[int, str]:
        interrupts = Interrupts(cluster=Cluster(lifelines[process]))
        for call in range(100):
            if process == 2 and call == at:
                interrupts.received = "SIGTERM"
            try:
                interrupts.agree(call)
            except Interrupted as error:
                return call, str(error)
        return 100, "never"

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(drive, range(3)))
    for heartbeat in lifelines:
        heartbeat.end()
    assert found == [(at + 1, f"SIGTERM on {lifelines[2].host}")] * 3


def test_all_processes_read_the_values_that_all_gave_at_the_call_before():
    lifelines = meet_all(2, [0, 1])
    for heartbeat in lifelines:
        heartbeat.start()

    def drive(process: int) -> list[list[int]]:
        interrupts = Interrupts(cluster=Cluster(lifelines[process]))
        return [interrupts.agree(10 * call + process) for call in range(1, 4)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(drive, range(2)))
    for heartbeat in lifelines:
        heartbeat.end()
    assert [values[1:] for values in found] == [[[10, 11], [20, 21]]] * 2


def test_alone_a_signal_stops_at_once_and_the_value_is_ones_own():
    interrupts = Interrupts()
    assert interrupts.agree(7) == [7]
    interrupts.received = "SIGINT"
    with pytest.raises(Interrupted, match="SIGINT"):
        interrupts.check()


def test_one_process_holds_all_rows_of_a_batch_in_their_order():
    assert np.array_equal(local_rows(24, meshes.make_mesh(3)), np.arange(24))
