-- The state of the warehouse as a page to look at.

CREATE FUNCTION _wh.status_page(days integer DEFAULT 90)
RETURNS text LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_status_page';
COMMENT ON FUNCTION _wh.status_page(integer) IS
'One HTML document that needs nothing else: what needs attention and what to type, what runs, failures with their causes, throughput, and the last days (1 to 366, today in UTC included) of every subscription. It is one line of ASCII without backslashes. Reads the ledger for these days and takes no lock that a load waits for. Errors: 22004 or 22023 days is NULL or out of range';

CREATE FUNCTION _wh.write_status_page(days integer DEFAULT 90)
RETURNS bigint LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_write_status_page';
COMMENT ON FUNCTION _wh.write_status_page(integer) IS
'Writes status_page() of so many days into the file of the server that the setting wh_worker.status_page_file names; whoever reads that file has the page of before or the new one, never a part. Returns its bytes. Errors: 55000 the setting is empty, 22004 or 22023 as status_page(), or why the file cannot be written';
