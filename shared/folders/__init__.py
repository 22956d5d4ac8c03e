"""Folders of this machine that pictures are read from and written to in place, within what LACUNA_ROOTS allows."""
