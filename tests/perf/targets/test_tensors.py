"""The binary form of tensors, against the packing of Triton's own client library."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient import utils

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.targets.tensors import NUMPY_TYPES, TensorSpec, pack, unpack

NUMBERS = sorted(NUMPY_TYPES.keys() - {"BYTES", "BF16"})


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_are_little_endian_bytes_under_tritons_names(datatype):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(NUMPY_TYPES[datatype])
    assert utils.np_to_triton_dtype(array.dtype) == datatype
    data = pack(array, datatype)
    assert data == array.astype(array.dtype.newbyteorder("<")).tobytes()
    restored = unpack(memoryview(data), datatype, (3, 2))
    np.testing.assert_array_equal(restored, array)


def test_arrays_that_are_not_contiguous_are_packed_in_order():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert pack(array, "FP32") == np.ascontiguousarray(array).tobytes()


def test_strings_are_packed_as_by_tritons_client():
    array = np.array([["", "aé"], [b"\x00\xff", "long" * 100]], dtype=object)
    data = pack(array, "BYTES")
    assert data == utils.serialize_byte_tensor(array).item()
    restored = unpack(memoryview(data), "BYTES", (2, 2))
    assert restored.tolist() == [[b"", "aé".encode()], [b"\x00\xff", b"long" * 100]]


def test_bfloat16_keeps_its_values_and_rounds_others_to_even():
    exact = np.array([0.0, 1.0, -2.5, np.inf, 2.0**100, -(2.0**-100)], np.float32)
    np.testing.assert_array_equal(unpack(memoryview(pack(exact, "BF16")), "BF16", (6,)), exact)
    between = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)  # halfway between neighbours
    rounded = unpack(memoryview(pack(between, "BF16")), "BF16", (2,))
    np.testing.assert_array_equal(rounded, [1.0, 1 + 2**-6])


@pytest.mark.parametrize(
    ("data", "datatype", "shape"),
    [
        (b"\x00" * 7, "FP32", (2,)),
        (b"\x00" * 8, "FP32", (3,)),
        (b"\x05\x00\x00\x00ab", "BYTES", (1,)),
        (b"\x01\x00\x00\x00abc", "BYTES", (1,)),
        (b"\x01\x00", "BYTES", (1,)),
        (b"\x00" * 8, "COMPLEX", (1,)),
    ],
)
def test_bytes_that_do_not_fit_are_one_sentence(data, datatype, shape):
    with pytest.raises(InfrastructureError, match="does not fit"):
        unpack(memoryview(data), datatype, shape)


def test_an_unknown_datatype_is_named():
    with pytest.raises(InputError, match="'COMPLEX64', which is no KServe v2 datatype"):
        _ = TensorSpec("x", "COMPLEX64", (1,)).dtype
