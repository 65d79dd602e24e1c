/*
 * schedule_write.h: for the functions that write schedules of commands: they
 * run as their caller and write as admin_role.
 */
#ifndef WH_SCHEDULE_WRITE_H
#define WH_SCHEDULE_WRITE_H

#include "template_code.h"

typedef struct WhCaller
{
	Oid			role;
	WhRestricted restricted;
} WhCaller;

extern void wh_schedule_become_admin(WhCaller *caller);
extern void wh_schedule_become_caller(const WhCaller *caller);

typedef struct WhNewSql
{
	const char *schedule;
	const char *timezone;		/* NULL: the setting's */
	const char *command;
	const char *username;
	bool		active;
} WhNewSql;

/*
 * Returns the id of the new schedule; 0 if the name is taken.  Without a name
 * it gets one with its id.  SPI is connected; as admin_role.
 */
extern int64 wh_schedule_insert_sql(const char *name, const WhNewSql *new);

#endif
