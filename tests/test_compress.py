"""Compressed weights: what is written is read to the bit, what is damaged is refused, and sizes are those of files."""

import hashlib
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.compress import codebooks, deep, floors, sensitivity
from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.train import assess, seals, trained
from jaxcnn.weights import compressed, files, huffman
from jaxcnn.weights import shared as sharing
from jaxcnn.weights.shared import Shared
from tests import digits, runs, small
from tests.test_starting import same, started

SEED = np.random.default_rng(0)


def one_by_one(encoded: huffman.Encoded) -> list[int]:
    """The reference decoder: bit after bit, by the words of the canonical code."""
    words = huffman.words_of(encoded.lengths)
    symbols = {(int(n), int(w)): s for s, (n, w) in enumerate(zip(encoded.lengths, words, strict=True))}
    found, word, length = [], 0, 0
    for bit in np.unpackbits(encoded.bits):
        word, length = 2 * word + int(bit), length + 1
        if len(found) < encoded.count and (length, word) in symbols:
            found.append(symbols[length, word])
            word = length = 0
    return found


def test_the_words_are_those_of_the_textbook():
    counts = np.array([45, 13, 12, 16, 9, 5])  # Cormen et al., Introduction to Algorithms, section 16.3: 224 bits
    lengths = huffman.lengths_of(counts)
    np.testing.assert_array_equal(lengths, [1, 3, 3, 3, 4, 4])
    assert int(np.sum(counts * lengths)) == 224
    assert [f"{w:0{n}b}" for w, n in zip(huffman.words_of(lengths), lengths, strict=True)] == [
        "0",
        "100",
        "101",
        "110",
        "1110",
        "1111",
    ]


def test_rare_symbols_have_no_word_above_the_longest():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:  # whose words would have up to 39 bits
        fibonacci.append(sum(fibonacci[-2:]))
    lengths = huffman.lengths_of(np.array(fibonacci)).astype(float)
    assert lengths.max() <= huffman.LONGEST and np.sum(2.0**-lengths) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.integers(0, 3 * huffman.BLOCK))
def test_symbols_are_decoded_as_encoded(few, many):
    symbols = np.array(few + [7] * many, np.int64)
    encoded = huffman.encode(symbols, 13)
    np.testing.assert_array_equal(huffman.decode(encoded), symbols)
    if len(symbols) < 3000:
        assert one_by_one(encoded) == symbols.tolist()
    assert len(encoded.bits) == -(-sharing.bits_of(symbols, 13) // 8)


def test_distances_that_are_too_long_get_fillers_as_in_the_paper():
    codes = np.zeros(16, np.int64)
    codes[[1, 4, 15]] = 34, 9, 17  # figure 2 of the paper: 3.4, 0.9, 1.7, of 3 bits
    streams = sharing.relative(Shared(np.arange(1, 40, dtype=np.float32), codes), 3)
    np.testing.assert_array_equal(streams.distances + 1, [2, 3, 8, 3])
    np.testing.assert_array_equal(streams.codes, [34, 9, 0, 17])
    np.testing.assert_array_equal(sharing.restored(streams, (4, 4)), codes.reshape(4, 4))


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_every_form_of_an_array_restores_it(density):
    codes = np.where(SEED.random((30, 20)) < density, SEED.integers(1, 6, (30, 20)), 0)
    array = Shared(SEED.normal(size=5).astype(np.float32), codes)
    for streams in (sharing.dense(array), *(sharing.relative(array, bits) for bits in sharing.INDEX_BITS)):
        np.testing.assert_array_equal(sharing.restored(streams, codes.shape), codes)
    assert array.shortest.index_bits == 0 if density == 1 else True


def test_shared_values_are_the_means_of_their_weights_and_the_nearest():
    weights = SEED.normal(size=(50, 40)).astype(np.float32)
    weights[SEED.random(weights.shape) < 0.7] = 0
    array = codebooks.share(weights, 3)
    decoded = array.decoded()
    assert len(array.codebook) == 8
    np.testing.assert_array_equal(decoded == 0, weights == 0)
    live = weights[weights != 0]
    distances = np.abs(live[:, None] - array.codebook)
    np.testing.assert_allclose(np.abs(live - decoded[weights != 0]), distances.min(axis=1), rtol=1e-5, atol=1e-7)
    for number, value in enumerate(array.codebook, start=1):
        assert value == np.float32(weights[array.codes == number].astype(np.float64).mean())


def test_few_values_are_kept_to_the_bit():
    weights = SEED.choice(np.float32([-1.5, 0, 0.1, 0.3]), (8, 9))
    array = codebooks.share(weights, 2)
    np.testing.assert_array_equal(array.decoded(), weights)
    np.testing.assert_array_equal(codebooks.share(np.zeros((3, 2), np.float32), 4).decoded(), np.zeros((3, 2)))


def arrays() -> dict:
    codes = np.where(SEED.random((6, 50)) < 0.2, SEED.integers(1, 4, (6, 50)), 0)
    return {"params/a/kernel": Shared(np.float32([-1, 0.5, 2]), codes), "params/a/bias": np.arange(6, dtype=np.float32)}


def test_a_file_is_read_as_written_and_equal_arrays_give_equal_bytes(tmp_path):
    wrote = arrays()
    size = compressed.write(tmp_path / "a.jxc", wrote, {"class_names": "[]"})
    assert size == (tmp_path / "a.jxc").stat().st_size == len(compressed.packed(wrote, {"class_names": "[]"}))
    read, facts = files.read(tmp_path / "a.jxc")
    np.testing.assert_array_equal(read["params/a/kernel"], wrote["params/a/kernel"].decoded())
    np.testing.assert_array_equal(read["params/a/bias"], wrote["params/a/bias"])
    assert facts == {"class_names": "[]"} and len(read) == 2


def test_a_file_cut_or_flipped_at_any_byte_is_refused_in_one_line(tmp_path):
    whole, path = compressed.packed(arrays(), {}), tmp_path / "a.jxc"
    bad = [whole[:cut] for cut in range(len(whole))] + [whole + b"\0"]
    bad += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            files.read(path)
        assert "\n" not in str(caught.value)


def bomb(shapes):
    """A file of a few bytes with a right checksum, whose header claims zeros."""
    empty = {"kind": "shared", "values": 0, "index_bits": 1, "symbols": 0, "bytes": [0, 0]}
    arrays = [{"name": name, "shape": shape} | empty for name, shape in shapes.items()]
    header = json.dumps({"arrays": arrays, "facts": {}}).encode()
    alphabets = bytes(3 * len(shapes))  # one value and two distances without a word
    deflated = zlib.compress(struct.pack("<I", len(header)) + header + alphabets)
    body = struct.pack("<I", len(deflated)) + deflated
    return compressed.MAGIC + hashlib.sha256(body).digest() + body


def test_zeros_are_not_allocated_because_a_header_claims_them(tmp_path):
    path, small_enough = tmp_path / "a.jxc", {str(i): [2**10, 2**10] for i in range(4)}
    path.write_bytes(bomb(small_enough))
    assert sum(each.size for each in files.read(path)[0].values()) == 2**22
    with pytest.raises(UserError, match=r"^the file has the weights of another network than the run"):
        files.read(path, wanted={"a": (2, 3)})
    for shapes in ({"a": [2**26]}, {str(i): [2**20] for i in range(5)}, {str(i): [2**31] for i in range(99)}):
        path.write_bytes(bomb(shapes))
        with pytest.raises(UserError, match=r"is damaged \(it claims [0-9,]+ weights in [0-9,]+ bytes, which is no"):
            files.read(path)


def test_a_file_that_was_made_up_with_the_right_checksum_is_refused_or_read_but_never_a_bug(tmp_path):
    whole, path = compressed.packed(arrays(), {}), tmp_path / "a.jxc"
    body, refused = bytearray(whole[len(compressed.MAGIC) + compressed.DIGEST :]), 0
    for place in range(len(body)):
        made = bytes(body[:place]) + bytes([body[place] ^ 0x55]) + bytes(body[place + 1 :])
        path.write_bytes(compressed.MAGIC + hashlib.sha256(made).digest() + made)
        try:
            files.read(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(body) // 2
    header = struct.pack("<I", 4) + b"none"
    path.write_bytes(compressed.MAGIC + hashlib.sha256(header).digest() + header)
    with pytest.raises(UserError, match="is no file that"):
        files.read(path)


def test_int8_has_one_scale_for_each_output_channel():
    for shape, axis in (((3, 3, 4, 5), 3), ((5, 7), 0)):
        weights = SEED.normal(size=shape).astype(np.float32)
        codes, scales = floors.int8_of(weights)
        assert scales.shape == tuple(size if each == axis else 1 for each, size in enumerate(shape))
        assert np.all(np.abs(codes).max(axis=tuple(a for a in range(len(shape)) if a != axis)) == 127)
        assert np.all(np.abs(codes * scales - weights) <= 0.5001 * scales)  # half a step, and the rounding of float32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, its network with most weights at zero, and its validation split."""
    folder = tmp_path_factory.mktemp("compress") / "run"
    digits.run(folder)
    with small.programs_kept():
        network, _ = trained.load(folder, "last", "", 1)
    arrays = seals.on_host(network.variables)
    for name, each in arrays.items():
        if each.ndim > 1:
            arrays[name] = np.where(np.abs(each) < np.quantile(np.abs(each), 0.8), 0, each)
    return folder, deep.with_arrays(network, arrays), assess.open_split(network, folder, "val", "")[0]


@pytest.fixture(scope="module")
def result(run):
    folder, network, split = run
    with small.programs_kept():
        return deep.compress(
            network, split, folder / "a.jxc", deep.Bits(6, 4, (("conv1/kernel", 8),)), lambda line: None
        )


def test_a_coder_that_is_not_installed_is_told(monkeypatch, tmp_path):
    assert floors.lacks() == [] and floors.coded(bytes(100)).keys() == {"zlib", "zstd"}
    monkeypatch.setattr(extras.util, "find_spec", lambda name: None)
    assert floors.coded(bytes(100)).keys() == {"zlib"}

    class Said(Exception):
        pass

    def say(line):
        raise Said(line)

    with pytest.raises(Said, match=r"column zstd needs zstandard, .* pip install 'jaxcnn\[compress\]'; the table is"):
        deep.compress(None, None, tmp_path / "a.jxc", deep.Bits(), say)


def test_the_figures_of_a_file_are_those_of_what_it_decodes_to(run, result):
    folder, network, split = run
    rows, layers = result
    decoded, _ = files.read(folder / "a.jxc")
    assert rows[-1].figures == deep.with_arrays(network, decoded).evaluate(split)
    assert rows[-1].size == (folder / "a.jxc").stat().st_size
    assert rows[0].size == sum(each.nbytes for each in decoded.values())
    assert rows[0].figures == network.evaluate(split)
    values = {layer.path: layer.values for layer in layers}
    assert max(values["conv2/kernel"], values["conv3/kernel"]) <= 64 and values["classifier/kernel"] <= 16
    for layer in layers:
        kernel = decoded[f"params/{layer.path}"]
        assert (layer.live, layer.weights) == (np.count_nonzero(kernel), kernel.size)


def test_a_run_starts_from_a_file_with_its_classes_and_normalisation(run, result):
    folder, network, _ = run
    config = digits.config(init={"source": f"file:{folder}/a.jxc"})
    state, _, start = started(config)
    decoded, _ = files.read(folder / "a.jxc")
    assert same(state.variables(), deep.with_arrays(network, decoded).variables)
    assert start.class_names == network.class_names and start.normal is not None


def test_a_file_of_another_network_and_patterns_without_kernels_are_refused(run):
    _, network, _ = run
    with pytest.raises(UserError, match="weights of another network than the run"):
        deep.with_arrays(network, {"params/a": np.zeros(3)})
    with pytest.raises(UserError, match=r"--layer_bits: 'conv7' matches no kernel; there are classifier/kernel, conv1"):
        deep.share(seals.on_host(network.variables), deep.Bits(layers=(("conv7", 4),)))
    with pytest.raises(UserError, match=r"--layer_bits: '\[' is not a regular expression"):
        deep.share(seals.on_host(network.variables), deep.Bits(layers=(("[", 4),)))


def test_the_tables_have_a_line_for_each_step_and_layer(run, result):
    _, network, _ = run
    rows, layers = result
    lines = deep.table(rows, network)
    assert len(lines) == 2 + len(rows) and f"| {rows[-1].size:,} |" in lines[-1] and "accuracy | loss |" in lines[0]
    assert len(deep.table_of_layers(layers)) == 2 + len(layers)


def test_the_command_writes_a_file_that_it_measures_again_and_tells_wrong_flags_in_one_line(run, tmp_path):
    folder, _, _ = run
    out = tmp_path / "b.jxc"
    code, output = runs.run(f"--workdir={folder}", f"--out={out}", module="jaxcnn.compress")
    assert code == 0 and "no weight is zero; train with --config.prune.sparsity=0.9" in output
    steps = json.loads((tmp_path / "b.jxc.json").read_text())["steps"]
    assert steps[-1]["size"] == out.stat().st_size and "| float32 |" in output
    code, output = runs.run(f"--workdir={folder}", f"--check={out}", module="jaxcnn.compress")
    assert code == 0 and f"loss {steps[-1]['figures']['loss']:.4f}" in output
    out.write_bytes(out.read_bytes()[:-1])
    for wrong, words in (
        ((f"--check={out}",), "is damaged (its checksum is another)"),
        ((f"--check={out}", f"--out={out}"), "give one of them"),
        (("--conv_bits=13",), "--conv_bits=13: bits of shared values are 1 to 12"),
        (("--layer_bits=conv1",), "write <pattern of the whole path>=<bits>"),
    ):
        code, output = runs.run(f"--workdir={folder}", *wrong, module="jaxcnn.compress")
        assert code == 2 and words in output.splitlines()[-1]


def test_the_sensitivity_of_a_layer_is_what_its_zeros_alone_cost(run, tmp_path, kept_programs):
    kernel = np.array([[3.0, -1.0], [0.5, -2.0]], np.float32)
    np.testing.assert_array_equal(sensitivity.without_smallest(kernel, 0.5), [[3.0, 0.0], [0.0, -2.0]])
    _, network, split = run
    whole, lines = sensitivity.measure(network, split, (0.0, 1.0), lambda line: None)
    kernels = {name: each for name, each in seals.leaves(network.variables) if each.ndim > 1}
    assert [line.path for line in lines] == [deep.path_of(name) for name in kernels]
    assert all(line.figures[0.0] == whole for line in lines)
    arrays = seals.on_host(network.variables)
    name = "params/classifier/kernel"
    zeros = deep.with_arrays(network, {**arrays, name: np.zeros_like(arrays[name])})
    last = next(line for line in lines if line.path == "classifier/kernel")
    assert last.figures[1.0] == zeros.evaluate(split) and last.figures[1.0]["loss"] != whole["loss"]
    headline = network.spec.task.evaluation.headline
    assert len(sensitivity.table(whole, lines, headline)) == 3 + len(lines)
    sensitivity.draw(whole, lines, headline, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
