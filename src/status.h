/*
 * status.h: shared memory.  status.c is the only file that touches the
 * segment and its lock; everybody else calls these.
 */
#ifndef WH_STATUS_H
#define WH_STATUS_H

#include "datatype/timestamp.h"
#include "utils/date.h"

typedef enum WhPhase
{
	WH_PHASE_STARTING,
	WH_PHASE_WAITING,			/* for what last_error says; launchers only */
	WH_PHASE_IDLE,
	WH_PHASE_CONNECTING,
	WH_PHASE_FETCHING,
	WH_PHASE_INDEXING,
	WH_PHASE_WAITING_LOCK,
	WH_PHASE_PUBLISHING,
} WhPhase;

/* Set by the process that owns a slot; no-ops in an ordinary backend. */
extern void wh_status_phase(WhPhase phase);
extern WhPhase wh_status_get_phase(void);	/* of this process, also in a backend */
extern const char *wh_status_phase_name(WhPhase phase);
extern void wh_status_progress(int64 rows, int64 bytes);

#endif
