"""The real input of the local stack: one public brain scan as the patients of two Trusts, made at install time."""
