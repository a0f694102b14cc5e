/*
 * The second library: what needs OpenSSL. It is linked in statically, its names are not exported, and it
 * reads no configuration file and leaves nothing to do at exit. Loaded only when something asks for it.
 */
#ifndef UBI_SSL_H
#define UBI_SSL_H

#include "../xts_portable.h"

/* Before anything else, by the thread that loads the library; again does no harm. 0 or -EIO. */
int32_t ubi_ssl_start(void);

ubi_xts_portable_create ubi_ssl_xts_create;
ubi_xts_portable_run ubi_ssl_xts_run;
ubi_xts_portable_destroy ubi_ssl_xts_destroy;

#endif
