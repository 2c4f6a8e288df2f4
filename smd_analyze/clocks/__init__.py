"""Decay clocks: which directions feel no gradient, and how fast does weight decay shrink them?"""
