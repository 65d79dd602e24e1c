-- Files that a crash has left.

CREATE FUNCTION _wh.orphaned_files(OUT tablespace text, OUT path text, OUT bytes bigint, OUT modified_at timestamptz)
	RETURNS SETOF record LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_orphaned_files';
COMMENT ON FUNCTION _wh.orphaned_files() IS
	'Files of relations of this database, whosoever, that no relation has: what a server that was killed while a relation was made leaves behind, and nothing removes. path is relative to the data directory. Files that have changed since the oldest transaction which runs began are not judged, so that a long transaction hides some; empty ones are left out, because a relation that was dropped has one until the next checkpoint. Takes no lock that anybody waits for; reads the names of all files of the database, and pg_class. Errors: 55000 the server is a standby';
