-- A run whose last attempts brought no further round is given no net before this.
ALTER TABLE run ADD COLUMN rests_until timestamptz;
