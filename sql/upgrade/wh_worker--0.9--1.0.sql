/*
 * wh_worker--0.9--1.0.sql: ALTER EXTENSION wh_worker UPDATE, from the last
 * version before 1.0.  What a change of sql/ does to an extension that is there
 * already; t/072_upgrade.pl holds the result against a new one.
 */
\echo Use "ALTER EXTENSION wh_worker UPDATE TO '1.0'" to load this file. \quit
