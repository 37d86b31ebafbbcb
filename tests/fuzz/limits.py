"""How long a case may take; LVOLFS_FUZZ_CASE_SECONDS says more for a machine that stands still."""

import os

CASE_SECONDS = float(os.environ.get("LVOLFS_FUZZ_CASE_SECONDS", "30"))
# For one answer: the target's own complaint says more than the end of the case.
ANSWER_SECONDS = CASE_SECONDS * 2 / 3
