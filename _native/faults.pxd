"""Mistakes that tests plant on purpose, to see that the power-cut replay catches each.

They live in `store_t.faults`, which is 0 but for Engine.seed_fault.
"""

cdef enum:
    FAULT_NO_DATA_BARRIER = 1       # metadata may become durable before the data they name
    FAULT_NO_PAGE_BARRIER = 2       # a root may become durable before the pages it names
    FAULT_ROOTS_FIRST = 4           # roots are written before the pages they name
    FAULT_REUSE_EARLY = 8           # a freed cluster is handed out before the commit
    FAULT_SHORT_WRITE = 16          # half of a data write is lost, and nobody is told
    FAULT_LOST_MARK = 32            # a new cluster does not make its extent page dirty
    FAULT_CHAIN_FIRST = 64          # a deleted blob's chain goes before its root
    FAULT_STALE_CRC = 128           # a changed extent page keeps a checksum that is not its own
    FAULT_MERGE_IN_PLACE = 256      # a merge changes the clone's extent pages where they are
    FAULT_CLEAN_KEPT = 512          # the first change leaves the store marked as closed cleanly
    FAULT_FREE_BEFORE_MAP = 1024    # a freed cluster may be committed as free while a map names it
    FAULT_COPY_FORGOTTEN = 4096     # a partial cluster is named in a map without what is missing
    FAULT_FLUSH_LEAVES_PARTIAL = 8192   # a flush does not complete partial clusters
    # No mistake: whenever a cluster is freed, a commit runs in the middle of that.
    COMMIT_IN_RELEASE = 2048
