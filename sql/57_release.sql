-- Leaving: the data stays, and needs nothing of ours.

CREATE FUNCTION _wh.release_data() RETURNS integer
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_release_data';
COMMENT ON FUNCTION _wh.release_data() IS
'Makes all data of a paused warehouse independent of it, so that DROP EXTENSION wh_worker loses none: days that are materialized views become tables, in place, with their grants, indexes and comments; partition trees move from schema _wh to public and the schemas of their tenants; the views go on reading them, {template}_isolated for the roles that are readers now. Then the ledger is empty, no subscription is active and none has schedules; a later load of such a day fails with 42P07, because its name is taken. No row is copied and no reader waits for a day. One call makes as many tables as a quarter of the lock table has room for: returns how many materialized views are left, 0 when all is released. Errors: 55000 the warehouse is not paused or is a copy that waits for confirm_warehouse(), or a day has no content; 55006 a job still runs; 42501 the caller has not the rights of the admin role, or a day belongs to somebody else; 42P07 the name of a tree is taken in its new schema';
