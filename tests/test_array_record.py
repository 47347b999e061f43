"""ArrayRecord files read by several threads at once, and damaged ones."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxcnn.data import array_record
from tests.test_tfds_source import example


class Meeting:
    """A reader whose `read` returns only if another thread is in it as well."""

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=120)

    def read(self, numbers):
        self.barrier.wait()
        return [example({"image": b"%d" % number, "label": 1}) for number in numbers]


def files(tmp_path):
    return array_record.ArrayRecordFiles([tmp_path / "a.array_record"], "image", "label")


def test_threads_read_at_the_same_time_through_a_reader_that_is_opened_once(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(array_record, "_reader", lambda path: opened.append(Meeting()) or opened[-1])
    records = files(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda number: records.read(0, number, 0), range(8))) == [b"%d" % n for n in range(8)]
    assert len(opened) == 1


def test_every_record_is_right_whichever_thread_reads_it(tmp_path):
    module = pytest.importorskip("array_record.python.array_record_module")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    images = [bytes([number % 251]) * (1 + 37 * number) for number in range(200)]
    for image in images:
        writer.write(example({"image": image, "label": 2}))
    writer.close()
    records = files(tmp_path)
    numbers = [(7 * number) % 200 for number in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: records.read(0, number, 0), numbers))
    assert found == [images[number] for number in numbers]
    assert array_record.index_array_record(tmp_path / "a.array_record", "image", "label")[:, 2].tolist() == [2] * 200


def test_a_record_that_the_package_cannot_read_is_an_error_of_reading(tmp_path, monkeypatch):
    class Damaged:
        def read(self, numbers):
            raise RuntimeError("Corrupted chunk\nwith details")

    monkeypatch.setattr(array_record, "_reader", lambda path: Damaged())
    with pytest.raises(OSError, match=r"^Corrupted chunk$"):
        files(tmp_path).read(0, 3, 0)


def test_a_file_that_is_cut_or_empty_is_an_error_of_reading(tmp_path):
    """The package opens it all the same, and tells what is wrong when it is closed."""
    pytest.importorskip("array_record")
    for content in (b"", bytes(70_000)):
        (tmp_path / "a.array_record").write_bytes(content)
        with pytest.raises(OSError, match=r"64KB|Riegeli|chunk"):
            array_record.index_array_record(tmp_path / "a.array_record", "image", "label")
