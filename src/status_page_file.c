/*
 * status_page_file.c: _wh.write_status_page(): the status page into the file that
 * the setting wh_worker.status_page_file names.
 *
 * Called from SQL, by a schedule as a rule.  The path is no argument: whoever
 * may name a file of the server's owner may become its superuser, and a schedule
 * runs as an ordinary role.  So a superuser chooses one file, and callers choose
 * when it is written.
 *
 * The page is written beside the file, with O_EXCL so that no link is followed,
 * and renamed: whoever reads it, a web server for instance, has the old page or
 * the new one and never a part.  It is no data: what a crash loses comes with the
 * next run, so nothing is synced.  A file that was written in part is taken away.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "guc.h"
#include "status_page.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_write_status_page);

/* Others read it, as what COPY writes. */
#define PAGE_MODE (S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH)

static void
require_file(void)
{
	if (wh_status_page_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no file for the status page"),
				 errhint("A superuser names one in wh_worker.status_page_file; \"psql -Atc 'SELECT _wh.status_page()'\" needs none.")));
}

static void
refuse(const char *what, const char *path)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", what, path)));
}

static void
write_all(int fd, const char *path, const StringInfoData *page)
{
	int			done = 0;

	while (done < page->len)
	{
		ssize_t		n = write(fd, page->data + done, page->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			/* a disk that is full may say so by writing less */
			if (n == 0)
				errno = ENOSPC;
			refuse("write", path);
		}
		done += n;
	}
	/* the server's umask is tighter than this */
	if (fchmod(fd, PAGE_MODE) != 0)
		refuse("set permissions of", path);
}

static void
write_file(const char *path, const StringInfoData *page)
{
	int			fd;

	if (unlink(path) != 0 && errno != ENOENT)
		refuse("remove", path);
	fd = OpenTransientFilePerm(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, PAGE_MODE);
	if (fd < 0)
		refuse("create", path);
	write_all(fd, path, page);
	if (CloseTransientFile(fd) != 0)
		refuse("close", path);
}

Datum
wh_sql_write_status_page(PG_FUNCTION_ARGS)
{
	char	   *beside;
	StringInfo	page;

	wh_require_preloaded();
	require_file();
	page = wh_page_make(fcinfo, 0);
	beside = psprintf("%s.%d.new", wh_status_page_file, MyProcPid);
	PG_TRY();
	{
		write_file(beside, page);
		if (rename(beside, wh_status_page_file) != 0)
			refuse("rename", beside);
	}
	PG_CATCH();
	{
		(void) unlink(beside);
		PG_RE_THROW();
	}
	PG_END_TRY();
	PG_RETURN_INT64(page->len);
}
