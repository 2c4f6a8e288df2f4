"""Bytes of files, here or elsewhere: what lies where, positional reads, an eye on files that change."""
