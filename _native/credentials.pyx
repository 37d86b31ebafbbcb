"""Credentials of one thread: in the kernel they belong to threads, whatever libc makes of it."""

import os

from libc.errno cimport EINVAL, errno

cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <sys/types.h>
    #include <unistd.h>

    /* The libc functions of these names would change every thread of the process. */
    static int become(uid_t uid, gid_t gid, const gid_t *groups, size_t count)
    {
        if (syscall(SYS_setgroups, count, groups))
            return -1;
        if (syscall(SYS_setresgid, -1, gid, -1))
            return -1;
        return (int)syscall(SYS_setresuid, -1, uid, -1);
    }
    """
    ctypedef unsigned int uid_t
    ctypedef unsigned int gid_t
    int become_client "become"(uid_t uid, gid_t gid, const gid_t *groups, size_t count) nogil

cdef enum:
    # As many as the server asks the kernel for.
    MOST_GROUPS = 256


def become(unsigned int uid, unsigned int gid, groups):
    cdef gid_t[MOST_GROUPS] numbers
    cdef size_t count = len(groups)
    cdef size_t i
    if count > MOST_GROUPS:
        raise OSError(EINVAL, f"cannot act for uid {uid}: it has {count} groups, more than {MOST_GROUPS}")
    for i in range(count):
        numbers[i] = groups[i]
    if become_client(uid, gid, numbers, count):
        raise OSError(errno, f"cannot act for uid {uid}: {os.strerror(errno)}")
