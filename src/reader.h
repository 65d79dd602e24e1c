/*
 * reader.h: roles that may read one tenant.
 */
#ifndef WH_READER_H
#define WH_READER_H

/*
 * The tenant has no readers any more: a tenant that is made later under its name
 * is another one.  As admin_role, with SPI connected.
 */
extern void wh_reader_forget_tenant(const char *tenant_name);

#endif
