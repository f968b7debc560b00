"""Choose the nodes of a conversion that stay float32.

They're surveyed, searched for in one session, verified by the judge.
"""
