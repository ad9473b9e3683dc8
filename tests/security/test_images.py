"""Images made to take memory or time (requirement S7): each is refused for the price of its header."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

from PIL import Image

READ = """
import json, resource, sys, time
from pathlib import Path
from PIL import Image
from vitexp.data.file.image import decode_image, open_image
from vitexp.errors import DataError
Image.preinit()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
decode_image(sys.argv[2], channels=3, max_pixels=50_000_000)  # libraries are loaded
before, said = peak(), {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    for reader in (open_image, decode_image):
        try:
            reader(file, channels=3, max_pixels=50_000_000)
            said[file.name] = "read"
        except DataError as error:
            said.setdefault(file.name, str(error))
    said[file.name] = [said[file.name], time.process_time() - start]
print(json.dumps({"said": said, "mebibytes": peak() - before}))
"""


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def scans(side: int, count: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (side, side), 128).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    first, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[first:end] * count + data[end:]


def tiff(entries: int) -> bytes:
    """A directory that says it has many entries and then points to itself."""
    size = struct.pack("<HHII", 256, 4, 1, 1_000_000) + struct.pack("<HHII", 257, 4, 1, 1_000_000)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", entries) + size + struct.pack("<I", 8)


def test_no_image_takes_much_memory_or_time(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good.jpg"
    bad.mkdir()
    Image.new("RGB", (8, 8)).save(good)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000)))
    contents = {
        "100_megapixels.png": png(10_000, 10_000),
        "196_megapixels.png": png(14_000, 14_000),
        "2_gigapixels.png": png(2**31 - 1, 1),
        "text.png": png(8, 8, text),
        "scans.jpg": scans(4000, 5000),
        "screen.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + bytes(9) + b"\x02\x00;",
        "directory.tif": tiff(65535),
        "terapixels.tif": tiff(2),
        "header.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6,
        "header.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "header.ppm": b"P6 99999 99999 255\n",
        "empty.jpg": b"",
        "words.jpg": b"<html>",
    }
    for name, content in contents.items():
        (bad / name).write_bytes(content)
    with (bad / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 36)
    command = [sys.executable, "-c", READ, str(bad), str(good)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, (said, seconds) in found["said"].items():
        assert said.startswith(str(bad / name)), (name, said)
        assert seconds < 2, name
    assert len(found["said"]) == len(contents) + 1
    assert found["mebibytes"] < 300
