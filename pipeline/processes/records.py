"""The format of a runner's log: records of a fixed head and then bytes, one record a line.

Head, little-endian: version, stream, flags, 0, monotonic nanoseconds, wall-clock nanoseconds, length. Then
`length` bytes, without the newline. Only whole records count: what is torn at the end of the file was not
written.
"""

import struct

VERSION = 1
HEAD = struct.Struct("<BBBBQQI")
MAX_DATA = 65536  # bytes of one record; a longer line is several records

STDOUT, STDERR, NOTE = 1, 2, 3

CONTINUED = 1  # the line goes on in the next record of this stream
NO_NEWLINE = 2  # the stream ended here without a newline
GAP = 4  # bytes of this stream were dropped before this record
