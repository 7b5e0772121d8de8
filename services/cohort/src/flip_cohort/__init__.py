"""Cohort queries and answers at the hub; the guarded query and the frozen cohort at a Trust."""
