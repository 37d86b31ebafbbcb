"""What a store should hold: lvols as dicts of clusters, and who is whose parent."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class ModelLvol:
    """`own`: cluster index -> bytes of the cluster."""

    name: str
    num_clusters: int
    cluster_size: int
    thin: bool = True
    read_only: bool = False
    own: dict = field(default_factory=dict)
    parent: "ModelLvol | None" = None
    external: bytes | None = None
    xattrs: dict = field(default_factory=dict)

    def cluster(self, index):
        lvol = self
        while True:
            if index >= lvol.num_clusters:
                return bytes(lvol.cluster_size)
            if index in lvol.own:
                return lvol.own[index]
            if lvol.parent is None:
                break
            lvol = lvol.parent
        if lvol.external is not None:
            size = lvol.cluster_size
            return lvol.external[index * size : (index + 1) * size].ljust(size, b"\0")
        return bytes(self.cluster_size)

    def content(self):
        return b"".join(map(self.cluster, range(self.num_clusters)))

    def write(self, offset, data):
        size = self.cluster_size
        position = 0
        while position < len(data):
            index, start = divmod(offset + position, size)
            count = min(size - start, len(data) - position)
            cluster = bytearray(self.cluster(index))
            cluster[start : start + count] = data[position : position + count]
            self.own[index] = bytes(cluster)
            position += count

    def take_ownership(self, indices):
        """After a call that may allocate or free: what is owned is the store's to choose, as
        long as the content stays."""
        shown = {index: self.cluster(index) for index in {*indices, *self.own}}
        self.own = {index: shown[index] for index in indices}
        for index, content in shown.items():
            assert self.cluster(index) == content, f"cluster {index} of {self.name}"


class ModelStore:
    def __init__(self, cluster_size):
        self.cluster_size = cluster_size
        self.lvols = {}

    def children(self, lvol):
        return [other for other in self.lvols.values() if other.parent is lvol]

    def create(self, name, num_clusters, thin):
        lvol = ModelLvol(name, num_clusters, self.cluster_size, thin=thin)
        if not thin:
            lvol.own = {index: bytes(self.cluster_size) for index in range(num_clusters)}
        self.lvols[name] = lvol
        return lvol

    def snapshot(self, origin, name, xattrs):
        snapshot = ModelLvol(
            name,
            origin.num_clusters,
            self.cluster_size,
            thin=origin.thin,
            read_only=True,
            own=origin.own,
            parent=origin.parent,
            external=origin.external,
            xattrs=dict(xattrs),
        )
        origin.own, origin.parent, origin.external, origin.thin = {}, snapshot, None, True
        self.lvols[name] = snapshot

    def clone(self, snapshot, name):
        self.lvols[name] = ModelLvol(
            name, snapshot.num_clusters, self.cluster_size, parent=snapshot
        )

    def delete(self, lvol):
        for clone in self.children(lvol):
            for index, content in lvol.own.items():
                if index < clone.num_clusters:
                    clone.own.setdefault(index, content)
            self.reparent(clone, lvol)
        del self.lvols[lvol.name]

    def resize(self, lvol, num_clusters):
        """What appears behind the old end is zeros."""
        before = lvol.num_clusters
        lvol.own = {i: data for i, data in lvol.own.items() if i < num_clusters}
        lvol.num_clusters = num_clusters
        zeros = bytes(self.cluster_size)
        for index in range(before, num_clusters):
            if not lvol.thin or lvol.cluster(index) != zeros:
                lvol.own[index] = zeros

    def inflate(self, lvol):
        lvol.own = {index: lvol.cluster(index) for index in range(lvol.num_clusters)}
        lvol.parent = lvol.external = None
        lvol.thin = False

    def decouple(self, lvol):
        parent = lvol.parent
        for index, content in parent.own.items():
            if index < lvol.num_clusters:
                lvol.own.setdefault(index, content)
        self.reparent(lvol, parent)

    @staticmethod
    def reparent(lvol, parent):
        """Under the parent of its parent; what the parent's end has hidden stays hidden."""
        before = [lvol.cluster(index) for index in range(lvol.num_clusters)]
        lvol.parent, lvol.external = parent.parent, parent.external
        for index in range(parent.num_clusters, lvol.num_clusters):
            if lvol.cluster(index) != before[index]:
                lvol.own[index] = before[index]
