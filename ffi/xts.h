/* AES-256-XTS over 512-byte sectors. */
#ifndef UBI_XTS_H
#define UBI_XTS_H

#include "ubi.h"

#define UBI_XTS_ENTRIES

#endif
