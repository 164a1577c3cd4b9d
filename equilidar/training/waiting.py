"""How threads wait for each other: must be said before torch is loaded, so this imports nothing."""

import os


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, in this process and those it starts; what the user has set stays.

    Spinning threads take the cores from the processes beside them. OpenMP reads this once, when torch loads it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
