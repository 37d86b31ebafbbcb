from pathlib import Path

from PIL import Image

from tests.cli.conftest import Run


def test_check_finds_damage(store: Path, run: Run) -> None:
    assert run("check", store, "--json").json["consistent"] is True
    data = bytearray(store.read_bytes())
    data[0:8] = b"NOTSPDKB"
    store.write_bytes(data)
    result = run("check", store, "--json", expect=3).json
    assert result["consistent"] is False
    assert result["findings"][0]["object"] == "superblock"


def test_check_of_what_cannot_be_read(tmp_path: Path, run: Run) -> None:
    assert "missing" in run("check", tmp_path / "missing", expect=1).err


def test_store_map_accounts_for_every_cluster(store: Path, run: Run) -> None:
    document = run("map", store, "--json").json
    owners = document["owners"]
    owned = dict.fromkeys(owners, 0)
    last = 0
    for first, count, owner in document["runs"]:
        assert first >= last
        last = first + count
        owned[owners[owner]] += count
    info = run("info", store, "--json").json
    assert owned["monday"] == 3
    assert owned["disk"] == 0
    assert sum(owned.values()) - owned["metadata"] == info["total_clusters"] - info["free_clusters"]
    text = run("map", store).out
    assert "monday: 3" in text


def test_lvol_map_tells_where_clusters_come_from(store: Path, run: Run) -> None:
    document = run("map", store, "disk", "--json").json
    assert document["owners"] == ["disk", "monday"]
    assert document["runs"] == [[0, 2, 1], [5, 1, 1]]
    lines = run("map", store, "disk").out.splitlines()
    assert lines[0] == "BB...B.."


def test_picture_shows_the_owners(store: Path, tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "map.png"
    run("map", store, "disk", "--png", picture)
    with Image.open(picture) as image:
        pixels = image.convert("RGB")
        width = pixels.width // 3
        cells = [
            pixels.getpixel((x * width + 1, y * width + 1)) for y in range(3) for x in range(3)
        ]
    assert cells[0] == cells[1] == cells[5]
    assert len({cells[0], cells[2]}) == 2
    assert cells[2] == cells[3] == cells[7]
