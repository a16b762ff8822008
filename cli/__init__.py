"""The command `lookalike`: arguments, tables, progress bars and the demo; no logic of its own."""
