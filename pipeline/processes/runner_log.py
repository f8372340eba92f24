"""The runner's log: lines become records, in bounded memory, whatever the child writes.

At most 64 KiB of an unfinished line are held for each stream; a longer line becomes several records. At the
cap the log takes no more output: either all of it is dropped and counted, or the last 256 KiB are kept in a
ring and written when the step ends. When the disk is full the child is read on and what could not be
written is counted; a torn write is cut off again, so that the file always ends with a whole record.
"""

import os
from time import monotonic_ns, time_ns

from pipeline.processes.records import (
    CONTINUED,
    GAP,
    HEAD,
    MAX_DATA,
    NO_NEWLINE,
    NOTE,
    STDERR,
    STDOUT,
    VERSION,
)
from pipeline.processes.runner_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RING_BYTES = 256 * 1024
_BATCH_BYTES = 256 * 1024
_KEPT_NOTES_BYTES = 64 * 1024  # notes that wait for space on a full disk


class Log:
    """`fd` is open for appending and empty. `size` is the file's length in bytes, `dropped` the bytes of
    output that are not in it.
    """

    def __init__(self, fd: int, log_bytes: int, keep_ends: bool) -> None:
        self.size = 0
        self.dropped = 0
        self.full = False  # the cap was reached
        self._fd = fd
        self._cap = log_bytes
        self._keep_ends = keep_ends
        self._lines = {STDOUT: bytearray(), STDERR: bytearray()}
        self._gaps = {STDOUT: 0, STDERR: 0}  # GAP when the stream's next record comes after dropped bytes
        self._batch = bytearray()
        self._ring = bytearray()
        self._ring_dropped = 0  # of this step
        self._unwritten = 0  # bytes of output that a full disk took and no note has told of
        self._disk_error = ""
        self._marks: list[tuple[list[bytes], dict[str, str], Callable[[], None]]] = []
        self._edge = b""  # the last bytes of a long line's piece

    def mark(self, pairs: dict[str, str], call: "Callable[[], None]") -> None:
        """From now on call for each line of stdout that is a JSON object with these words at its top."""
        for key, word in list(pairs.items())[:1]:
            needles = [f'"{key}":{space}"{word}"'.encode() for space in ("", " ")]
            self._marks.append((needles, pairs, call))

    def unmark(self) -> None:
        self._marks.clear()

    def feed(self, stream: int, data: bytes) -> None:
        """Take what was read from a stream. The newline is not stored."""
        line = self._lines[stream]
        start = 0
        while True:
            newline = data.find(b"\n", start)
            end = len(data) if newline < 0 else newline
            if newline >= 0 and not line and end - start <= MAX_DATA:
                self._output(stream, 0, data[start:end])
            else:
                line += memoryview(data)[start:end]
                while len(line) > MAX_DATA:
                    self._output(stream, CONTINUED, bytes(line[:MAX_DATA]))
                    del line[:MAX_DATA]
                if newline >= 0:
                    self._output(stream, 0, bytes(line))
                    line.clear()
            if newline < 0:
                return
            start = newline + 1

    def end_streams(self) -> None:
        """The step is over: what waits for a newline gets none."""
        for stream, line in self._lines.items():
            if line:
                self._output(stream, NO_NEWLINE, bytes(line))
                line.clear()
        if self._ring:
            self._write_ring()
        self.flush()

    def note(self, note: str, **fields: object) -> None:
        """Write down what the runner itself did. Notes are few, and are written beyond the cap too."""
        self._append(NOTE, 0, dumps({"note": note, **fields}).encode())

    def flush(self) -> None:
        """Write what waits. Raises nothing: a full disk loses output, never the child."""
        if not self._batch:
            return
        batch = self._disk_note() + self._batch if self._unwritten else self._batch
        view = memoryview(batch)
        done = 0
        try:
            while done < len(batch):
                done += os.write(self._fd, view[done:])
        except OSError as error:
            view.release()
            self._disk_error = os.strerror(error.errno or 0)
            self._take_back()
            return
        view.release()
        self.size += done
        self._unwritten = 0
        self._batch.clear()

    def sync(self) -> None:
        """Make the log durable. Raises OSError."""
        os.fsync(self._fd)

    def _output(self, stream: int, flags: int, data: bytes) -> None:
        if self._marks and stream == STDOUT:
            self._look(flags, data)
        if not self.full and self.size + len(self._batch) + HEAD.size + len(data) > self._cap:
            self.full = True
        if not self.full:
            self._append(stream, flags | self._gaps[stream], data)
            self._gaps[stream] = 0
        elif self._keep_ends:
            self._ring += HEAD.pack(VERSION, stream, flags, 0, monotonic_ns(), time_ns(), len(data))
            self._ring += data
            while len(self._ring) > RING_BYTES:
                self._forget_oldest()
        else:
            self.dropped += len(data)
            self._gaps[stream] = GAP

    def _look(self, flags: int, data: bytes) -> None:
        """A piece of a line that is too long to be held counts by its bytes alone."""
        piece = self._edge + data
        for needles, pairs, call in list(self._marks):
            if any([needle in piece for needle in needles]) and (
                len(piece) > len(data) or flags & CONTINUED or _says(data, pairs)
            ):
                call()
        self._edge = data[-64:] if flags & CONTINUED else b""

    def _append(self, stream: int, flags: int, data: bytes) -> None:
        self._batch += HEAD.pack(VERSION, stream, flags, 0, monotonic_ns(), time_ns(), len(data))
        self._batch += data
        if len(self._batch) > _BATCH_BYTES:
            self.flush()

    def _forget_oldest(self) -> None:
        _, stream, _, _, _, _, length = HEAD.unpack_from(self._ring)
        self._ring_dropped += length
        self.dropped += length
        self._gaps[stream] = GAP
        del self._ring[: HEAD.size + length]

    def _write_ring(self) -> None:
        if self._ring_dropped:
            self.note(
                "dropped",
                bytes=self._ring_dropped,
                reason="the log's limit was reached; the end of the output follows",
            )
        at = 0
        while at < len(self._ring):
            _, stream, flags, _, monotonic, wall, length = HEAD.unpack_from(self._ring, at)
            HEAD.pack_into(
                self._ring, at, VERSION, stream, flags | self._gaps[stream], 0, monotonic, wall, length
            )
            self._gaps[stream] = 0
            at += HEAD.size + length
        self._batch += self._ring
        self._ring = bytearray()
        self._ring_dropped = 0

    def _disk_note(self) -> bytes:
        text = dumps(
            {
                "note": "dropped",
                "bytes": self._unwritten,
                "reason": f"the log could not be written: {self._disk_error}",
            }
        ).encode()
        return HEAD.pack(VERSION, NOTE, 0, 0, monotonic_ns(), time_ns(), len(text)) + text

    def _take_back(self) -> None:
        """After a failed write: cut the torn tail off, keep the notes for later, count the output as
        dropped.
        """
        try:
            os.ftruncate(self._fd, self.size)
        except OSError as error:
            self._disk_error += f"; and could not be cut back: {os.strerror(error.errno or 0)}"
        kept = bytearray()
        at = 0
        while at < len(self._batch):
            _, stream, _, _, _, _, length = HEAD.unpack_from(self._batch, at)
            end = at + HEAD.size + length
            if stream != NOTE:
                self.dropped += length
                self._unwritten += length
                self._gaps[stream] = GAP
            elif len(kept) + length < _KEPT_NOTES_BYTES:
                kept += self._batch[at:end]
            at = end
        self._batch = kept


def _says(line: bytes, pairs: dict[str, str]) -> bool:
    try:
        value = loads(line.decode())
    except ValueError:
        return False
    return isinstance(value, dict) and all(value.get(key) == word for key, word in pairs.items())
