"""Element types: torch's names, their size, and how numpy holds their bits."""

from __future__ import annotations

NUMPY: dict[str, str] = {
    "float64": "f8", "float32": "f4", "float16": "f2",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "?",
    "complex64": "c8", "complex128": "c16",
    "bfloat16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1", "float8_e4m3fnuz": "u1", "float8_e5m2fnuz": "u1",
    "float8_e8m0fnu": "u1", "qint8": "i1", "quint8": "u1", "qint32": "i4",
}  # fmt: skip
"""torch dtype name → numpy type of the same width; bfloat16 and float8 are held as their bits."""

NUMPY_CODES: dict[str, str] = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8",
    "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8", "b1": "bool", "?": "bool", "c8": "complex64",
    "c16": "complex128",
}  # fmt: skip
"""numpy's type codes, without the byte order → torch's names."""

ITEMSIZE: dict[str, int] = {name: 1 if code == "?" else int(code[1:]) for name, code in NUMPY.items()}
"""torch dtype name → bytes per element."""

FLOATING = frozenset(n for n in NUMPY if n.startswith(("float", "bfloat", "complex")))
"""Types whose tensors can be trained; integers and booleans are buffers."""

STORAGES: dict[str, str] = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8", "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
}  # fmt: skip
"""torch's storage classes → dtype name of their elements."""

SAFETENSORS: dict[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""safetensors' dtype words → torch's names."""
