"""The experiment that measures how far verdicts can be trusted: what is called a failure, and what
falsely so.
"""
