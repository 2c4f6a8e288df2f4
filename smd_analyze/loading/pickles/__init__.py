"""Pickles read as data, and what torch.save makes of them. Nothing is ever executed."""
