"""Model files, scans and result bundles."""
