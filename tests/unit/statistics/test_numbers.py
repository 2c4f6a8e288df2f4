"""Bits to numbers, against torch."""

import numpy as np
import pytest
import torch

from smd_analyze.statistics.numbers import FLOAT8, decode, float8_values


@pytest.mark.parametrize("dtype", list(FLOAT8))
def test_float8_equals_torch(dtype):
    theirs = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(float8_values(dtype), theirs)


def test_bfloat16_bits_equal_torch():
    values = torch.randn(100).bfloat16()
    bits = values.view(torch.uint16).numpy()
    np.testing.assert_array_equal(decode(bits, "bfloat16", False), values.float().numpy())


def test_complex_numbers_are_pairs():
    values = np.array([[1 + 2j, 3 - 4j]], np.complex64)
    np.testing.assert_array_equal(decode(values, "complex64", False), np.array([1, 2, 3, -4], np.float32))


def test_widths():
    assert decode(np.zeros(2, np.float16), "float16", False).dtype == np.float32
    assert decode(np.zeros(2, np.float32), "float32", True).dtype == np.float64
    assert decode(np.zeros(2, np.float64), "float64", False).dtype == np.float64
    with pytest.raises(ValueError, match="int8"):
        decode(np.zeros(2, np.int8), "int8", False)
