/*
 * A folder and what lies in it, whoever may have written there: every path is relative to the folder and is
 * refused with -ELOOP where a part of it is a symbolic link, with -EXDEV or -ENOENT where it would lead out. The
 * folder itself may have been opened through links.
 */
#ifndef UBI_FOLDER_H
#define UBI_FOLDER_H

#include "ubi.h"

/* openat2(2): a descriptor or -errno. With O_PATH | O_NOFOLLOW a link at the end is opened itself. */
int32_t ubi_folder_open(int32_t folder, const char *path, uint32_t flags, uint32_t mode);

/* The same where the kernel has no openat2, or what confines this process does not let it through. */
int32_t ubi_folder_open_by_parts(int32_t folder, const char *path, uint32_t flags, uint32_t mode);

/* Makes the folder and those above it that are not there yet. */
int32_t ubi_folder_make(int32_t folder, const char *path, uint32_t mode);

int32_t ubi_folder_rename(int32_t folder, const char *from, const char *to);

/* -EEXIST where there is something, also a link. */
int32_t ubi_folder_link(int32_t folder, const char *from, const char *to);

/* Removes a file or a link, no folder. */
int32_t ubi_folder_unlink(int32_t folder, const char *path);

/* renameat2(2), RENAME_NOREPLACE, of whole paths: -EEXIST where there is something, -EINVAL where it cannot be done. */
int32_t ubi_folder_rename_new(const char *from, const char *to);

#endif
