"""The golden stores under tests/images, unpacked for a test."""

import base64
import json
import subprocess
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
STORES = sorted(path.stem for path in IMAGES.glob("*.json"))
EXTERNAL_ID = "11111111-2222-4333-8444-555555555555"


def manifest(name):
    return json.loads((IMAGES / f"{name}.json").read_text())


def unpack(name, folder):
    """Unpacks image `name` into `folder`; returns its path as text."""
    target = Path(folder) / f"{name}.img"
    subprocess.run(
        ["zstd", "-q", "-d", "-f", "--sparse", IMAGES / f"{name}.img.zst", "-o", target], check=True
    )
    target.chmod(0o644)
    return str(target)


def bits(data, count):
    return [i for i in range(count) if data[i // 8] >> i % 8 & 1]


def fragmap_bits(lvol):
    fragmap = lvol["fragmap"]
    return bits(base64.b64decode(fragmap["fragmap"]), fragmap["num_clusters"])


def lvol_name(lvol):
    return lvol["alias"].split("/")[1]
