"""The experiment that measures how far verdicts can be trusted.

What is called a failure, and what falsely so.
"""
