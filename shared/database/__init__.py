"""The truth: tables, engines, migrations."""
