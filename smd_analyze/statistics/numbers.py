"""What bits mean: bfloat16 and float8 bits to float32, complex numbers to pairs."""

from functools import cache

import numpy as np

FLOAT8 = {  # name: (exponent bits, mantissa bits, exponent bias, has infinities, one zero only)
    "float8_e5m2": (5, 2, 15, True, False),
    "float8_e4m3fn": (4, 3, 7, False, False),
    "float8_e5m2fnuz": (5, 2, 16, False, True),
    "float8_e4m3fnuz": (4, 3, 8, False, True),
}


def decode(array: np.ndarray, dtype: str, double: bool) -> np.ndarray:
    """The elements of a tensor as a flat float32 array, or float64 if `double` or if the dtype holds more.

    Complex numbers become pairs of reals: norm and angle are then those of the real vector space.
    Raises: ValueError for a dtype that is none of ours.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype == "bfloat16":
        flat = (flat.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype in FLOAT8:
        flat = float8_values(dtype)[flat.view(np.uint8)]
    elif flat.dtype.kind == "c":
        flat = flat.view(np.float32 if flat.dtype.itemsize == 8 else np.float64)
    if flat.dtype.kind != "f":
        raise ValueError(f"no rule to read {dtype} as numbers")
    return flat.astype(np.float64 if double or flat.dtype.itemsize > 4 else np.float32, copy=False)


@cache
def float8_values(dtype: str) -> np.ndarray:
    """The 256 values of a float8 (arXiv:2209.05433; the fnuz kinds: arXiv:2206.02915), NaN and infinity included."""
    exponent_bits, mantissa_bits, bias, infinities, one_zero = FLOAT8[dtype]
    bits = np.arange(256)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    size = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    values = np.where(bits >= 128, -size, size)
    if one_zero:
        values[128] = np.nan
    elif infinities:
        top = exponent == (1 << exponent_bits) - 1
        values[top] = np.where(mantissa[top] == 0, np.where(bits[top] >= 128, -np.inf, np.inf), np.nan)
    else:
        values[[127, 255]] = np.nan
    return values.astype(np.float32)
