"""A fault bench: a backfill is disturbed by a schedule of faults that is drawn from a seed, and nothing may be lost."""
