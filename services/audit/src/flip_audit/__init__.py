"""The ledger of everything said."""
