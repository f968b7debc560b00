"""Greedy decoding: a decoder's steps with its cache fed back, judged token by token."""
