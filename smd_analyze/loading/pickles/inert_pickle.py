"""Reads a pickle as data: nothing is imported, nothing is called, everything is bounded.

The byte code is walked by a small stack machine. A global is a Name and nothing more; a call becomes an Inert object
that remembers name and arguments; state is hung on it, not set. Long byte strings stay in the file as Spans.
Format: Lib/pickletools.py of CPython, protocols 0 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.tensors.inert_objects import Inert, Name, Persistent, Span, dict_key, inert_call

MOST_OPERATIONS = 20_000_000  # an operation can make an object of ~60 bytes: bounds memory to about 1 GB
LONGEST_INTEGER = 1024  # bytes
LONGEST_LINE = 1 << 16
LONGEST_TEXT = 1 << 27
SPAN_FROM = 256  # byte strings from this length on are not copied
WINDOW = 1 << 18
LONGEST_OPERAND = 9  # opcode and operand of every operation of fixed length fit in this many bytes

Call = Callable[[str, tuple[Any, ...]], Any]
Resolve = Callable[[Any], Any]


class _Short(Exception):
    """The window ends within an operation."""


class _Refused(Exception):
    """A bound is passed; the text says which."""


def read_pickle(
    read: Callable[[int, int], bytes],
    start: int,
    stop: int,
    *,
    what: str,
    call: Call = inert_call,
    resolve: Resolve = Persistent,
) -> tuple[Any, int]:
    """Read one pickle that begins at byte `start` and may reach to `stop`; returns (value, first byte after it).

    `read(start, stop)` gives bytes of the file; they are asked for in windows, arrays inside a pickle are stepped over.
    `call(name, args)` makes the value of a call and `resolve(id)` that of a persistent id: both must only make data.
    `what` names the file in errors: DamagedFile if it is cut or not a pickle, UnsafeFile if it passes a bound.
    """
    machine = _Machine(read, start, stop, what, call, resolve)
    try:
        return machine.run()
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise DamagedFile(
            f"{what}: not a sound pickle near byte {machine.where}: {type(problem).__name__}: {problem}"
        ) from None


class _Machine:
    """The stack machine. An operation that finds its window too short changes nothing and is done again."""

    def __init__(
        self, read: Callable[[int, int], bytes], start: int, stop: int, what: str, call: Call, resolve: Resolve
    ) -> None:
        self.read, self.start, self.stop, self.what = read, start, stop, what
        self.call, self.resolve = call, resolve
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.where = start
        self.done = 0
        self.size = WINDOW

    def run(self) -> tuple[Any, int]:
        while True:
            data = self.read(self.where, min(self.stop, self.where + self.size))
            base = self.where
            try:
                finished = self.walk(data, base)
            except _Refused as why:
                raise UnsafeFile(f"{self.what}: refused near byte {self.where}: {why}") from None
            except (_Short, IndexError, struct.error) as problem:
                at_end = base + len(data) >= self.stop
                if at_end and (isinstance(problem, _Short) or base + len(data) - self.where < LONGEST_OPERAND):
                    raise DamagedFile(f"{self.what}: the pickle is cut short, near byte {self.where}") from None
                if at_end or (isinstance(problem, IndexError) and base + len(data) - self.where >= LONGEST_OPERAND):
                    raise ValueError("takes more from the stack than is there") from None
                continue
            if finished:
                return self.stack[-1] if self.stack else None, self.where

    def since_mark(self) -> list[Any]:
        at = self.marks.pop()
        if at > len(self.stack):
            raise ValueError("a mark above the stack")
        found = self.stack[at:]
        del self.stack[at:]
        return found

    def walk(self, data: bytes, base: int) -> bool:
        """Do operations until STOP (True) or until the window is too short (IndexError, struct.error)."""
        stack, memo, marks = self.stack, self.memo, self.marks
        push, pop = stack.append, stack.pop
        length, end = len(data), self.stop - base
        unpack = struct.unpack_from
        pos = 0
        call = self.call

        def line(at: int) -> tuple[bytes, int]:
            stop = data.find(b"\n", at, at + LONGEST_LINE)
            if stop < 0:
                if length - at >= LONGEST_LINE:
                    raise _Refused("a line of text too long")
                raise _Short
            return data[at:stop], stop + 1

        def text(at: int, count: int) -> bytes:
            if at + count > end:
                raise DamagedFile(
                    f"{self.what}: a string of {count} bytes at byte {base + at} passes the end of the file"
                )
            if count > LONGEST_TEXT:
                raise _Refused(f"a text of {count} bytes")
            if at + count > length:
                self.size = max(WINDOW, count + LONGEST_OPERAND)
                raise _Short
            return data[at : at + count]

        def binary(at: int, count: int) -> Any:
            if at + count > end:
                raise DamagedFile(f"{self.what}: {count} bytes claimed at byte {base + at}, past the end of the file")
            return Span(base + at, base + at + count) if count >= SPAN_FROM else text(at, count)

        counted = 0
        limit = MOST_OPERATIONS - self.done
        try:
            while True:
                op = data[pos]
                counted += 1
                if counted > limit:
                    raise _Refused(f"more than {MOST_OPERATIONS} operations")
                # the commonest first: memo puts and gets, short strings, numbers, tuples, calls
                if op == 0x71:  # BINPUT
                    memo[data[pos + 1]] = stack[-1]
                    pos += 2
                elif op == 0x68:  # BINGET
                    push(memo[data[pos + 1]])
                    pos += 2
                elif op == 0x4B:  # BININT1
                    push(data[pos + 1])
                    pos += 2
                elif op == 0x58:  # BINUNICODE
                    count = unpack("<I", data, pos + 1)[0]
                    push(str(text(pos + 5, count), "utf-8", "backslashreplace"))
                    pos += 5 + count
                elif op == 0x72:  # LONG_BINPUT
                    memo[unpack("<I", data, pos + 1)[0]] = stack[-1]
                    pos += 5
                elif op == 0x28:  # MARK
                    marks.append(len(stack))
                    pos += 1
                elif op == 0x74:  # TUPLE
                    found = self.since_mark()
                    push(tuple(found))
                    pos += 1
                elif op == 0x51:  # BINPERSID
                    stack[-1] = self.resolve(stack[-1])
                    pos += 1
                elif op in (0x85, 0x86, 0x87):  # TUPLE1 TUPLE2 TUPLE3
                    count = op - 0x84
                    if len(stack) < count:
                        raise ValueError("stack underflow")
                    found = stack[-count:]
                    del stack[-count:]
                    push(tuple(found))
                    pos += 1
                elif op in (0x52, 0x81):  # REDUCE NEWOBJ
                    args, name = pop(), pop()
                    push(_made(call, name, args))
                    pos += 1
                elif op == 0x29:
                    push(())
                    pos += 1
                elif op == 0x7D:
                    push({})
                    pos += 1
                elif op == 0x5D:
                    push([])
                    pos += 1
                elif op == 0x89:
                    push(False)
                    pos += 1
                elif op == 0x88:
                    push(True)
                    pos += 1
                elif op == 0x4E:
                    push(None)
                    pos += 1
                elif op == 0x4D:  # BININT2
                    push(unpack("<H", data, pos + 1)[0])
                    pos += 3
                elif op == 0x4A:  # BININT
                    push(unpack("<i", data, pos + 1)[0])
                    pos += 5
                elif op == 0x47:  # BINFLOAT
                    push(unpack(">d", data, pos + 1)[0])
                    pos += 9
                elif op in (0x73, 0x75):  # SETITEM SETITEMS
                    if op == 0x73:
                        value = pop()
                        found = [pop(), value]
                    else:
                        found = self.since_mark()
                    target = stack[-1]
                    into = target if type(target) is dict else target.items if type(target) is Inert else None
                    if into is None or len(found) % 2:
                        raise ValueError("items set on something that is no dict")
                    for key, value in zip(found[::2], found[1::2], strict=True):
                        into[dict_key(key)] = value
                    pos += 1
                elif op in (0x61, 0x65):  # APPEND APPENDS
                    found = [pop()] if op == 0x61 else self.since_mark()
                    target = stack[-1]
                    (target if type(target) is list else target.sequence).extend(found)
                    pos += 1
                elif op == 0x63:  # GLOBAL
                    module, after = line(pos + 1)
                    name, after = line(after)
                    push(Name(f"{module.decode()} {name.decode()}"))
                    pos = after
                elif op == 0x62:  # BUILD
                    state = pop()
                    target = stack[-1]
                    if type(target) is Inert:
                        target.state = state  # an OrderedDict's attributes (_metadata) are dropped
                    pos += 1
                elif op == 0x94:  # MEMOIZE
                    memo[len(memo)] = stack[-1]
                    pos += 1
                elif op == 0x8C:  # SHORT_BINUNICODE
                    count = data[pos + 1]
                    push(str(text(pos + 2, count), "utf-8", "backslashreplace"))
                    pos += 2 + count
                elif op == 0x93:  # STACK_GLOBAL
                    name, module = pop(), pop()
                    if not isinstance(name, str) or not isinstance(module, str):
                        raise ValueError("a global whose name is no text")
                    push(Name(f"{module} {name}"))
                    pos += 1
                elif op == 0x8A:  # LONG1
                    count = data[pos + 1]
                    push(int.from_bytes(text(pos + 2, count), "little", signed=True))
                    pos += 2 + count
                elif op == 0x80:  # PROTO
                    if data[pos + 1] > 5:
                        raise DamagedFile(f"{self.what}: not a pickle (protocol {data[pos + 1]})")
                    pos += 2
                elif op == 0x95:  # FRAME
                    unpack("<Q", data, pos + 1)
                    pos += 9
                elif op == 0x6A:  # LONG_BINGET
                    push(memo[unpack("<I", data, pos + 1)[0]])
                    pos += 5
                elif op == 0x2E:  # STOP
                    pos += 1
                    return True
                else:
                    pos = self.rare(op, data, pos, line, text, binary)
                if not counted & 0xFFF:
                    self.done += counted
                    limit -= counted
                    counted = 0
        finally:
            self.where = base + pos

    def rare(self, op: int, data: bytes, pos: int, line: Any, text: Any, binary: Any) -> int:
        """The operations that checkpoints seldom hold; returns the position after one."""
        stack, memo = self.stack, self.memo
        push, pop = stack.append, stack.pop
        unpack = struct.unpack_from
        sized = _SIZED.get(op)
        if sized is not None:  # byte strings and long text: BINBYTES…, BINUNICODE8, BINSTRING…
            code, kind = sized
            count = data[pos + 1] if code == "B" else unpack("<" + code, data, pos + 1)[0]
            at = pos + 1 + struct.calcsize(code)
            if count < 0:
                raise ValueError("a string of negative length")
            if kind == "text":
                push(str(text(at, count), "utf-8", "backslashreplace"))
            elif kind == "latin":
                push(text(at, count).decode("latin1"))
            else:
                push(binary(at, count))
            return at + count
        if op == 0x8B:  # LONG4
            count = unpack("<i", data, pos + 1)[0]
            if not 0 <= count <= LONGEST_INTEGER:
                raise _Refused(f"an integer of {count} bytes")
            push(int.from_bytes(text(pos + 5, count), "little", signed=True))
            return pos + 5 + count
        if op in (0x49, 0x4C, 0x46, 0x53, 0x56, 0x70, 0x67, 0x50):  # text of protocol 0
            word, after = line(pos + 1)
            if op in (0x49, 0x4C):
                word = word.rstrip(b"L")
                if len(word) > 2 * LONGEST_INTEGER:
                    raise _Refused("an integer too long")
                push({b"00": False, b"01": True}[word] if word in (b"00", b"01") else int(word))
            elif op == 0x46:
                push(float(word))
            elif op == 0x53:
                push(word[1:-1].decode("latin1"))
            elif op == 0x56:
                push(word.decode("raw-unicode-escape").encode("utf-8", "backslashreplace").decode())
            elif op == 0x70:
                memo[int(word)] = stack[-1]
            elif op == 0x67:
                push(memo[int(word)])
            else:
                push(self.resolve(word.decode("ascii", "replace")))
            return after
        if op == 0x69:  # INST
            module, after = line(pos + 1)
            name, after = line(after)
            push(_made(self.call, Name(f"{module.decode()} {name.decode()}"), tuple(self.since_mark())))
            return after
        if op in (0x82, 0x83, 0x84):  # EXT1 EXT2 EXT4
            count = {0x82: 1, 0x83: 2, 0x84: 4}[op]
            push(Name(f"copyreg extension#{int.from_bytes(text(pos + 1, count), 'little')}"))
            return pos + 1 + count
        if op == 0x8F:
            push(set())
        elif op == 0x90:  # ADDITEMS
            found = self.since_mark()
            target = stack[-1]
            if type(target) is set:
                target.update(map(dict_key, found))
        elif op == 0x91:
            push({dict_key(v) for v in self.since_mark()})
        elif op == 0x6C:
            push(self.since_mark())
        elif op == 0x64:
            found = self.since_mark()
            push({dict_key(k): v for k, v in zip(found[::2], found[1::2], strict=True)})
        elif op == 0x30:  # POP: takes a mark if that is on top
            if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            else:
                pop()
        elif op == 0x31:
            self.since_mark()
        elif op == 0x32:
            push(stack[-1])
        elif op == 0x92:  # NEWOBJ_EX
            named, args, name = pop(), pop(), pop()
            made = _made(self.call, name, args)
            if type(made) is Inert and type(named) is dict:
                made.items.update(named)
            push(made)
        elif op == 0x6F:  # OBJ
            found = self.since_mark()
            if not found:
                raise ValueError("an object without a class")
            push(_made(self.call, found[0], tuple(found[1:])))
        elif op in (0x97, 0x98):
            raise _Refused("its data lie outside the pickle")
        else:
            raise DamagedFile(f"{self.what}: not a pickle (operation {op:#x} at byte {self.where})")
        return pos + 1


_SIZED = {
    0x8D: ("Q", "text"), 0x43: ("B", "bytes"), 0x42: ("I", "bytes"), 0x8E: ("Q", "bytes"), 0x96: ("Q", "bytes"),
    0x55: ("B", "latin"), 0x54: ("i", "latin"),
}  # fmt: skip


def _made(call: Call, name: Any, args: Any) -> Any:
    if type(args) is not tuple:
        args = (args,)
    return call(name, args) if type(name) is Name else Inert(f"? {type(name).__name__}", args)
