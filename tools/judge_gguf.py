"""GGUF files judged by the gguf Python package: what it finds in a file is what --inspect shows,
its values of every tensor are ours bit for bit, and so are, for the types that it can round to, its
blocks. Our values are those of the F32 file that phase7 makes of the file.

    python3 tools/judge_gguf.py ORIGINAL.gguf FILE.gguf...      ORIGINAL: the weights in F32
"""
import os
import re
import subprocess
import sys
import tempfile

import gguf
import numpy
from gguf import GGMLQuantizationType as Type

ROUNDED_ALIKE = {Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.BF16, Type.MXFP4}
WRITTEN_ANEW = {"general.file_type", "general.quantization_version"}


def keys_of(reader):
    return {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def inspect(path):
    """What --inspect prints: {key: type}, {tensor: (shape, type, bytes)}."""
    text = subprocess.run(["./phase7", "--inspect", path], check=True, capture_output=True).stdout
    tables = [[cells_of(line) for line in part.splitlines()[2:]]
              for part in text.decode().split("\n\n") if part.startswith("| ")]
    keys, tensors = tables[:2]
    return {row[0]: row[1] for row in keys}, {row[0]: tuple(row[1:4]) for row in tensors}


def type_text(field):
    def name(t):
        return {"FLOAT32": "f32", "FLOAT64": "f64"}.get(t.name, t.name.lower()).replace(
            "uint", "u").replace("int", "i")
    types = [name(t) for t in field.types]
    return f"{types[1]}[{len(field.data)}]" if types[0] == "array" else types[0]


def check_listing(path, reader):
    keys, tensors = inspect(path)
    theirs = {k: type_text(f) for k, f in keys_of(reader).items()}
    assert keys == theirs, f"{path}: keys {set(keys.items()) ^ set(theirs.items())}"
    theirs = {t.name: (str([int(n) for n in t.shape[::-1]]), t.tensor_type.name, str(t.n_bytes))
              for t in reader.tensors}
    assert tensors == theirs, f"{path}: tensors {set(tensors.items()) ^ set(theirs.items())}"
    return len(keys), len(tensors)


def check_metadata(path, reader, again):
    ours, theirs = keys_of(again), keys_of(reader)
    assert set(ours) == set(theirs), f"{path}: {set(ours) ^ set(theirs)}"
    for key in set(ours) - WRITTEN_ANEW:
        assert ours[key].contents() == theirs[key].contents(), f"{path}: {key}"


def values_of(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)


def bits(values):
    return numpy.ascontiguousarray(values).view(numpy.uint8)


def check_values(path, reader, again, original):
    original = {t.name: t for t in original.tensors}
    for a, b in zip(reader.tensors, again.tensors, strict=True):
        assert a.name == b.name, f"{path}: {a.name}, {b.name}"
        theirs, ours = values_of(a), values_of(b)
        assert numpy.array_equal(bits(theirs), bits(ours.reshape(theirs.shape))), \
            f"{path}: values of {a.name}"
        if a.tensor_type in ROUNDED_ALIKE:
            blocks = gguf.quants.quantize(values_of(original[a.name]), a.tensor_type)
            assert numpy.array_equal(bits(blocks), bits(a.data)), f"{path}: blocks of {a.name}"


def check(path, original):
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "f32.gguf")
        subprocess.run(["./phase7", "--quiet", "--model", path, "--type", "F32", "--no-eval",
                        "--out", copy], check=True, stdout=subprocess.DEVNULL)
        reader, again = gguf.GGUFReader(path), gguf.GGUFReader(copy)
        counts = check_listing(path, reader)
        check_metadata(path, reader, again)
        check_values(path, reader, again, original)
    return counts


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    original = gguf.GGUFReader(sys.argv[1])
    counts = {check(path, original) for path in sys.argv[2:]}
    keys, tensors = (" or ".join(str(n) for n in sorted(set(c))) for c in zip(*counts))
    print(f"The gguf package's reader finds the same {keys} keys and {tensors} tensors in each of "
          f"{len(sys.argv) - 2} files,")
    print("and the same values, bit for bit; where it can round (legacy types, BF16, MXFP4), the "
          "same blocks.")


main()
