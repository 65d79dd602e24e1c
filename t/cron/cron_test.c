/*
 * cron_test.c: what cron.h can do, as functions for regress/sql/cron.sql.
 *
 * A library of its own, made of this file and the two of the schedules'
 * parser, so that the extension carries no function that only tests call.
 * Nobody installs it; the test loads it from where it was built.
 */
#include "postgres.h"

#include "fmgr.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "../../src/cron.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(cron_mistake);
PG_FUNCTION_INFO_V1(cron_next);

/* cron_mistake(schedule) is NULL, or "position: message (hint)". */
Datum
cron_mistake(PG_FUNCTION_ARGS)
{
	WhCron		cron;
	WhCronError error;

	if (wh_cron_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), "", &cron, &error))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d: %s%s%s%s", error.position, error.message,
											  error.hint == NULL ? "" : " (",
											  error.hint == NULL ? "" : error.hint,
											  error.hint == NULL ? "" : ")")));
}

/* cron_next(schedule, zone, after, key) is the first run after a time. */
Datum
cron_next(PG_FUNCTION_ARGS)
{
	pg_tz	   *zone = pg_tzset(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	WhCron		cron;
	WhCronError error;

	if (zone == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("no such time zone")));
	if (!wh_cron_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)),
					   text_to_cstring(PG_GETARG_TEXT_PP(3)), &cron, &error))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s at character %d", error.message, error.position)));
	PG_RETURN_TIMESTAMPTZ(wh_cron_next(&cron, zone, PG_GETARG_TIMESTAMPTZ(2)));
}
