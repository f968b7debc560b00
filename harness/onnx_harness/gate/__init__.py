"""The nightly gate: a run compared with the accepted levels, in lockstep with pinned versions."""
