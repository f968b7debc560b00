"""Night against night: the pinned reference in lockstep, the accepted levels, and what has changed since."""
