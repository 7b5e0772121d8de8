"""Projects, members, staging, decisions, models and the enrichment confirmation."""
