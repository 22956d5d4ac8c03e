"""Zip archives that users send: checked as a whole before anything of them is unpacked."""
