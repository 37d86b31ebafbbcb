"""Lists of lvols, made while some of them go away."""

from pathlib import Path

from lvolfs.lvstore.store import Lvstore
from lvolfs.report import documents

CLUSTER = 16 << 10


def test_an_lvol_that_is_deleted_meanwhile_is_left_out(tmp_path: Path) -> None:
    with Lvstore.create(str(tmp_path / "store"), size=8 << 20, cluster_size=CLUSTER) as store:
        for name in ("a", "b", "c"):
            store.create_volume(name, CLUSTER)
        store.get("b").snapshot("s")
        listed = store.lvols
        store.get("c").delete()

        def one(lvol: documents.Lvol) -> dict[str, object]:
            if lvol.name == "a":
                # Another thread's turn comes between any two lvols.
                store.get("b").delete()
            return documents.lvol_document(lvol)

        told = documents.of_each(listed, one)
        assert [document["name"] for document in told] == ["a", "s"]
        assert told[1]["children"] == []
