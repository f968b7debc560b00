"""Judging on many machines, with Dask.distributed (the extra ``cluster``) as the engine.

`address` reads what ``--cluster`` says, `coordinator` decides who judges what, `worker` is what
runs on the other machines, `parcels` brings the files of a model there, `messages` is what they
say.
"""
