"""How often is killed, from KILLS in the environment (100 when it is not set)."""

import os

NUM_KILLS = int(os.environ.get("KILLS", "100"))

REAL_SERVER_KILLS = max(1, NUM_KILLS // 20)
"""Of servers on the embedded model."""

COUNTING_SERVER_KILLS = max(1, NUM_KILLS // 4)
"""Of servers whose engine counts: everything else about them is as it is."""

MIGRATION_KILLS = max(5, NUM_KILLS // 10)
"""Of processes that bring a database of the first release up to date."""

WRITER_KILLS = max(1, NUM_KILLS - REAL_SERVER_KILLS - COUNTING_SERVER_KILLS - MIGRATION_KILLS)
"""Of processes that keep chats as fast as the disk lets them."""
