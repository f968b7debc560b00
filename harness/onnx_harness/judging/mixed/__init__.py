"""Which nodes of a conversion have to stay float32: surveyed, searched for in one session, verified
by the judge.
"""
