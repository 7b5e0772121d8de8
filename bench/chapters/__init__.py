"""One module a question. Each answers with a chapter of the report."""
