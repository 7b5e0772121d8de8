-- The relay's window is what one snapshot shows and an earlier one doesn't; what a cursor has passed stays passed.
ALTER TABLE relay_cursor
    ALTER COLUMN low DROP DEFAULT,
    ALTER COLUMN high DROP DEFAULT,
    ALTER COLUMN low TYPE pg_snapshot USING concat(greatest(low, '1'), ':', greatest(low, '1'), ':')::pg_snapshot,
    ALTER COLUMN high TYPE pg_snapshot USING concat(greatest(high, '1'), ':', greatest(high, '1'), ':')::pg_snapshot,
    ALTER COLUMN low SET DEFAULT '1:1:',
    ALTER COLUMN high SET DEFAULT '1:1:';
