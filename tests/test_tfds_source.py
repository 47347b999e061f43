"""Sets of TensorFlow Datasets, read from hand-made files in its layout and from files that it wrote itself."""

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, UserError
from jaxcnn.data import tfds_prepare
from jaxcnn.data.source import open_splits
from jaxcnn.data.tfrecord import Damaged, ShardFiles, _masked_crc, index_shard
from tests.test_folder import encode, picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# A writer of the format, independent of the reader


def varint(value):
    value %= 2**64
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def example(features):
    """A serialized tf.train.Example of bytes and int features, in the order given."""
    entries = b""
    for key, value in features.items():
        feature = field(1, field(1, value)) if isinstance(value, bytes) else field(3, field(1, varint(value)))
        entries += field(1, field(1, key.encode()) + field(2, feature))
    return field(1, entries)


def write_shard(path, records):
    with open(path, "wb") as file:
        for record in records:
            header = len(record).to_bytes(8, "little")
            file.write(header + _masked_crc(header).to_bytes(4, "little") + record + b"\0\0\0\0")


def make_set(
    data_dir, path="pets/1.0.0", train=(7, 5), test=(4,), label=lambda number: number % 3, shape=(12, 12, 3), **size
):
    """A prepared set whose image `number` is `picture(number)`, in as many shards as lengths are given."""
    folder = data_dir / path
    folder.mkdir(parents=True)
    number = 0
    for split, lengths in (("train", train), ("test", test)):
        for shard, length in enumerate(lengths):
            records = []
            for _ in range(length):
                features = {"id": b"x" * 200, "image": encode(Image.fromarray(picture(number, **size)))}
                records.append(example(features | {"coarse": 77, "label": label(number)}))
                number += 1
            write_shard(folder / f"pets-{split}.tfrecord-{shard:05d}-of-{len(lengths):05d}", records)
    dimensions = {"dimensions": [str(side) for side in shape]}
    features = {
        "id": {"text": {}},
        "image": {"image": {"dtype": "uint8", "shape": dimensions}},
        "coarse": {"classLabel": {"numClasses": "100"}},
        "label": {"classLabel": {"numClasses": "3"}},
    }
    pair = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    splits = [
        {"name": "train", "shardLengths": [str(n) for n in train]},
        {"name": "test", "shardLengths": [str(n) for n in test]},
    ]
    info = {
        "name": "pets",
        "version": path.split("/")[-1],
        "fileFormat": "tfrecord",
        "splits": splits,
        "supervisedKeys": pair,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "label.labels.txt").write_text("cat\ndog\neel\n")
    return folder


def pets(data_dir, **fields):
    return Data(**{"source": "tfds:pets", "dir": str(data_dir), "val_examples": 3} | fields)


def everything(split):
    return split.read(np.arange(len(split)))


# Reading


def test_examples_come_in_the_order_of_the_records_over_all_shards(tmp_path):
    make_set(tmp_path)
    splits = open_splits(pets(tmp_path, protocol="full"))
    assert splits.class_names == ("cat", "dog", "eel")
    assert (everything(splits.train) == np.stack([picture(number) for number in range(12)])).all()
    assert (everything(splits.test) == np.stack([picture(number) for number in range(12, 16)])).all()
    assert splits.train.targets.tolist() == [number % 3 for number in range(12)]
    assert splits.train.description == "tfds:pets:1.0.0 train (protocol=full)"


def test_reading_by_offset_and_the_cache_of_pixels_give_the_same_bits(tmp_path, cache):
    make_set(tmp_path, shape=(-1, -1, 3), height=20, width=17)
    order = np.array([8, 0, 3, 3])
    for size in (0, 9):
        kept = open_splits(pets(tmp_path, image_size=size)).train.read(order)
        streamed = open_splits(pets(tmp_path, image_size=size, loader="stream")).train.read(order)
        assert (kept == streamed).all() and kept.shape[1:] == ((9, 9, 3) if size else (20, 17, 3))
    assert len(list(cache.glob("pixels-*.npy"))) == 4  # train and test, of two sizes


def test_a_prepared_set_is_read_without_tensorflow_and_the_second_start_reads_no_record(tmp_path, monkeypatch):
    make_set(tmp_path)
    program = f"""
import sys, numpy as np
from jaxcnn.config import Data
from jaxcnn.data.source import open_splits
splits = open_splits(Data(source="tfds:pets", dir={str(tmp_path)!r}, val_examples=3))
splits.train.read(np.arange(9))
assert not [name for name in sys.modules if name.startswith(("tensorflow", "sklearn"))]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    monkeypatch.setattr("jaxcnn.data.tfds_source.index_shard", None)
    monkeypatch.setattr("jaxcnn.data.encoded.decode_for", None)
    assert len(everything(open_splits(pets(tmp_path)).train)) == 9


def test_a_changed_file_is_read_anew(tmp_path):
    folder = make_set(tmp_path)
    open_splits(pets(tmp_path))
    shutil.rmtree(folder)
    make_set(tmp_path, label=lambda number: (number + 1) % 3)
    assert open_splits(pets(tmp_path, protocol="full")).train.targets.tolist() == [(n + 1) % 3 for n in range(12)]


def test_grey_images_keep_one_channel(tmp_path):
    make_set(tmp_path, shape=(12, 12, 1))
    assert open_splits(pets(tmp_path)).train.image_shape == (12, 12, 1)


def test_unreadable_records_are_named_or_left_out(tmp_path):
    folder = make_set(tmp_path)
    shard = folder / "pets-train.tfrecord-00001-of-00002"
    rows = index_shard(shard, "image", "label")
    damaged = bytearray(shard.read_bytes())
    damaged[rows[2, 0] + 60 : rows[2, 0] + 90] = bytes(30)
    shard.write_bytes(damaged)
    with pytest.raises(UserError, match=r"cannot read image .*00001-of-00002 record 2: "):
        open_splits(pets(tmp_path))
    splits = open_splits(pets(tmp_path, on_error="skip"))
    assert len(splits.train) == 8 and "skipped 1 unreadable image of" in splits.notes[0]


# Which set


def test_versions_configs_and_the_newest(tmp_path):
    make_set(tmp_path, "pets/1.9.0", train=(6,))
    make_set(tmp_path, "pets/1.10.0", train=(9,))
    make_set(tmp_path, "many/small/1.0.0", train=(12,))
    make_set(tmp_path, "many/8x8/1.0.0", train=(15,))

    def size(source):
        return len(open_splits(pets(tmp_path, source=f"tfds:{source}", protocol="full")).train)

    assert (size("pets"), size("pets:1.9.0"), size("pets/1.9.0")) == (9, 6, 6)
    assert (size("many/small"), size("many/8x8:1.0.0")) == (12, 15)
    (tmp_path / "many" / ".config").mkdir()
    (tmp_path / "many" / ".config" / "metadata.json").write_text('{"default_config_name": "8x8"}')
    assert size("many") == 15


def test_one_process_prepares_and_the_others_wait(tmp_path, monkeypatch):
    prepared = []

    def prepare(argument, data_dir):
        prepared.append(argument)
        time.sleep(0.2)
        make_set(data_dir)

    monkeypatch.setattr(tfds_prepare, "_prepare", prepare)
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda _: open_splits(pets(tmp_path)), range(4)))
    assert prepared == ["pets"] and [len(splits.test) for splits in sets] == [4] * 4


def test_the_data_dir_may_come_from_the_environment(tmp_path, monkeypatch):
    make_set(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(open_splits(pets("")).test) == 4


# What is wrong with it


def cut_off(folder):
    shard = folder / "pets-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-30])


def overwrite_header(folder):
    shard = folder / "pets-train.tfrecord-00000-of-00002"
    shard.write_bytes(b"\1" + shard.read_bytes()[1:])


def lose_a_record(folder):
    shard = folder / "pets-train.tfrecord-00000-of-00002"
    length = int.from_bytes(shard.read_bytes()[:8], "little")
    shard.write_bytes(shard.read_bytes()[length + 16 :])


def rewrite(name, change):
    def act(folder):
        tree = json.loads((folder / name).read_text())
        change(tree)
        (folder / name).write_text(json.dumps(tree))

    return act


@pytest.mark.parametrize(
    "spoil, line",
    [
        (cut_off, "00001-of-00002 is damaged: it ends inside record 4; remove .*pets/1.0.0"),
        (overwrite_header, "00000-of-00002 is damaged: record 0 has a damaged header"),
        (lose_a_record, "00000-of-00002 is damaged: it has 6 records, not 7"),
        (lambda folder: next(folder.glob("*train*")).unlink(), "only partly prepared: .*train.* is missing"),
        (lambda folder: (folder / "dataset_info.json").unlink(), "only partly prepared: dataset_info.json is missing"),
        (lambda folder: (folder / "features.json").write_text("{"), "cannot be understood"),
        (rewrite("dataset_info.json", lambda tree: tree.update(fileFormat="riegeli")), "stored as riegeli"),
        (
            rewrite("features.json", lambda tree: tree["featuresDict"]["features"].pop("image")),
            "not an image classification set .* it has: id, coarse, label",
        ),
        (
            rewrite(
                "features.json", lambda tree: tree["featuresDict"]["features"]["image"]["image"].update(dtype="float32")
            ),
            "images of type float32",
        ),
        (
            lambda folder: (folder / "label.labels.txt").write_bytes(b"cat\n\xff"),
            r"labels.txt is damaged: .* \(byte 4\)",
        ),
        (
            rewrite(
                "features.json",
                lambda tree: tree["featuresDict"]["features"]["label"]["classLabel"].update(numClasses=10**20),
            ),
            "100000000000000000000 classes",  # whose names would take all memory
        ),
        (
            rewrite("dataset_info.json", lambda tree: tree["splits"][0].update(filepathTemplate="../../{SPLIT}")),
            "'../../train' is not in that folder",
        ),
        (rewrite("dataset_info.json", lambda tree: tree["splits"][0].update(filepathTemplate="{}")), "understood"),
    ],
)
def test_damaged_and_unfit_sets_are_refused_in_one_line(tmp_path, spoil, line):
    spoil(make_set(tmp_path))
    with pytest.raises(UserError, match=line) as caught:
        open_splits(pets(tmp_path))
    assert "\n" not in str(caught.value)


def test_labels_out_of_range_and_unlabelled_splits_are_named_by_index(tmp_path):
    make_set(tmp_path, label=lambda number: -1 if number >= 12 else number % 3)
    with pytest.raises(UserError, match="test: label -1 at index 0 is out of range"):
        open_splits(pets(tmp_path))
    assert open_splits(pets(tmp_path, test_split="")).test is None


def test_a_promised_size_that_an_image_does_not_have_is_named(tmp_path):
    make_set(tmp_path, shape=(10, 10, 3))
    with pytest.raises(UserError, match="record 0 is 12x12x3, not 10x10x3"):
        open_splits(pets(tmp_path))


def test_names_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UserError, match="write tfds:<name>"):
        open_splits(pets(tmp_path, source="tfds:../etc"))
    with pytest.raises(UserError, match="must be a local folder"):
        open_splits(pets("gs://bucket"))


def test_records_without_the_features_are_damaged(tmp_path):
    for record, line in ((example({"image": b"x"}), "no feature 'label'"), (b"\xff" * 40, "is not a tf.train.Example")):
        write_shard(tmp_path / "a.tfrecord", [record])
        with pytest.raises(Damaged, match=f"record 0 .*{line}"):
            index_shard(tmp_path / "a.tfrecord", "image", "label")


def test_more_shards_than_may_be_open_are_read_all_the_same(tmp_path):
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(bytes([number] * 4))
    files = ShardFiles(paths, keep_open=2)
    assert [files.read(number % 5, 1, 2) for number in range(10)] == [bytes([number % 5] * 2) for number in range(10)]
    with pytest.raises(OSError, match="3 ends at 4, inside a record"):
        files.read(3, 2, 3)


# TensorFlow Datasets itself


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip("tensorflow")
    from jaxcnn.data.tensorflow import import_tensorflow

    import_tensorflow()
    return pytest.importorskip("tensorflow_datasets")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_files_that_tfds_wrote_give_the_examples_that_tfds_reads(tmp_path, tfds, file_format):
    if file_format == "array_record":
        pytest.importorskip("array_record")

    with tfds.core.registered.skip_registration():

        class Pets(tfds.core.GeneratorBasedBuilder):
            """A set made here."""

            VERSION = tfds.core.Version("1.2.3")

            def _info(self):
                label = tfds.features.ClassLabel(names=["cat", "dog", "eel"])
                features = {
                    "image": tfds.features.Image(shape=(12, 12, 3)),
                    "label": label,
                    "zeta": tfds.features.Text(),
                }
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 26)}

            def _generate_examples(self, start, stop):
                for number in range(start, stop):
                    yield number, {"image": picture(number), "label": number % 3, "zeta": "z" * number}

    builder = Pets(data_dir=str(tmp_path), file_format=file_format)
    builder.download_and_prepare()
    splits = open_splits(pets(tmp_path, protocol="full"))
    for split in (splits.train, splits.test):
        if file_format == "tfrecord":
            wanted = list(tfds.as_numpy(builder.as_dataset(split=split.name)))
        else:
            wanted = list(builder.as_data_source(split=split.name))
        assert len(split) == len(wanted)
        assert (everything(split) == np.stack([each["image"] for each in wanted])).all()
        assert split.targets.tolist() == [each["label"] for each in wanted]
    assert splits.class_names == ("cat", "dog", "eel")
    streamed = open_splits(pets(tmp_path, protocol="full", loader="stream"))
    assert (everything(streamed.train) == everything(splits.train)).all()


def test_an_unknown_set_is_refused_with_the_nearest_known_one(tmp_path, tfds):
    with pytest.raises(UserError, match=r"has no set 'cifar_10'.*did you mean tfds:cifar10"):
        open_splits(pets(tmp_path, source="tfds:cifar_10"))


def test_without_network_the_command_and_the_offline_choices_are_named(tmp_path, tfds, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "_any_reachable", lambda hosts: False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(UserError) as caught:
        open_splits(pets(tmp_path, source="tfds:cifar10"))
    line = str(caught.value)
    assert f"`tfds build cifar10 --data_dir={tmp_path}`" in line and "cannot reach www.cs.toronto.edu" in line
    assert all(choice in line for choice in ("digits", "synthetic", "npz:", "folder:")) and "\n" not in line


def test_a_preparation_that_fails_is_one_line(tmp_path, tfds, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("checksum of cifar-10-binary.tar.gz differs\nand more lines")

    monkeypatch.setattr(tfds_prepare, "_any_reachable", lambda hosts: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(
        UserError, match=r"preparing it failed: RuntimeError: checksum .* differs; prepare it with"
    ) as caught:
        open_splits(pets(tmp_path, source="tfds:cifar10"))
    assert "\n" not in str(caught.value)


def test_hosts_are_reachable_only_if_one_answers():
    import socket

    assert not tfds_prepare._any_reachable(["host.invalid"])
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        connect = socket.create_connection
        patch.setattr(socket, "create_connection", lambda address, timeout: connect(server.getsockname(), timeout))
        assert tfds_prepare._any_reachable(["host.invalid"])


def test_tensorflow_sees_no_accelerator(tfds):
    from jaxcnn.data.tensorflow import import_tensorflow

    assert {device.device_type for device in import_tensorflow().config.get_visible_devices()} == {"CPU"}
