"""`./huskies bench`: what the server costs, as ratios to what the machine itself can do in the same run.

Each case is a module with `measure(rounds) -> list[Row]`, run in a process of its own with a data folder of its own. A subject and its floor
take turns in an order that is shuffled in every round, so that slow drifts of the machine hit both alike; the first round is dropped.
"""

CASES = (
    "claims",
    "claims_postgresql",
    "start",
    "unconfined",
    "burst",
    "push",
    "ingest",
    "ingest_cost",
    "ingest_memory",
    "loud",
    "memory",
    "restart",
)
