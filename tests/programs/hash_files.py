"""Hash the files of a directory over threads, whose work is done outside the interpreter."""

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


with tempfile.TemporaryDirectory() as directory:
    for k in range(12):
        with open(os.path.join(directory, f"{k:02}.bin"), "wb") as file:
            file.write(bytes([k]) * 1000 * k)
    paths = sorted(entry.path for entry in os.scandir(directory))
    with ThreadPoolExecutor() as executor:
        for path, result in zip(paths, executor.map(digest, paths), strict=True):
            print(os.path.basename(path), result[:16])
