/*
 * A benchmark peer: what the kernel's side of FUSE costs, and no file system.
 *
 *     bare_fuse SIZE THREADS MOUNTPOINT
 *
 * serves MOUNTPOINT/flat, SIZE bytes long, until it is unmounted. A READ is answered with whatever
 * lies in a buffer, a WRITE with its length: nothing is looked up, copied or kept. Every other
 * file system that reads /dev/fuse does this and its own work, so none of them can be faster. It asks the
 * kernel for what lvolfs asks for (max_background, 1 MiB requests, parallel direct I/O), and
 * its threads read clones of the descriptor, as lvolfs's do.
 */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096, MAX_WRITE = 1 << 20, FLAT = 2, BACKGROUND = 256, HOLD_SECONDS = 3600 };

/* Newer than the headers of Debian 12. */
#define PARALLEL_DIRECT_WRITES (1u << 6)
#define DIRECT_IO_ALLOW_MMAP (1ull << 36)

static uint64_t flat_size;
static int mounted_fd;

static struct fuse_attr attributes(uint64_t inode) {
    struct fuse_attr attr = {.ino = inode, .nlink = 1, .uid = getuid(), .gid = getgid(),
                             .blksize = PAGE, .mode = S_IFDIR | 0700};
    if (inode == FLAT) {
        attr.mode = S_IFREG | 0600;
        attr.size = flat_size;
        attr.blocks = flat_size / 512;
    }
    return attr;
}

static void reply(int fd, uint64_t unique, int error, const void *data, size_t size) {
    struct fuse_out_header out = {.len = sizeof(out) + size, .error = error, .unique = unique};
    struct iovec parts[2] = {{&out, sizeof(out)}, {(void *)data, size}};
    if (writev(fd, parts, size ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV) {
        perror("bare_fuse: reply");
    }
}

static void on_init(int fd, uint64_t unique, const struct fuse_init_in *in) {
    const uint64_t wanted = FUSE_ASYNC_DIO | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_INIT_EXT |
                            FUSE_PARALLEL_DIROPS | DIRECT_IO_ALLOW_MMAP;
    uint64_t offered = in->flags;
    if (offered & FUSE_INIT_EXT) offered |= (uint64_t)in->flags2 << 32;
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                .minor = FUSE_KERNEL_MINOR_VERSION,
                                .max_readahead = in->max_readahead,
                                .flags = (uint32_t)(offered & wanted),
                                .flags2 = (uint32_t)((offered & wanted) >> 32),
                                .max_background = BACKGROUND,
                                .congestion_threshold = BACKGROUND * 3 / 4,
                                .max_write = MAX_WRITE,
                                .max_pages = MAX_WRITE / PAGE};
    reply(fd, unique, 0, &out, sizeof(out));
}

static void on_lookup(int fd, uint64_t unique, const char *name) {
    struct fuse_entry_out out = {.nodeid = FLAT, .entry_valid = HOLD_SECONDS,
                                 .attr_valid = HOLD_SECONDS, .attr = attributes(FLAT)};
    int found = strcmp(name, "flat") == 0;
    reply(fd, unique, found ? 0 : -ENOENT, &out, found ? sizeof(out) : 0);
}

static void on_attributes(int fd, uint64_t unique, uint64_t inode) {
    struct fuse_attr_out out = {.attr_valid = HOLD_SECONDS, .attr = attributes(inode)};
    reply(fd, unique, 0, &out, sizeof(out));
}

static void on_open(int fd, uint64_t unique) {
    struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO | PARALLEL_DIRECT_WRITES};
    reply(fd, unique, 0, &out, sizeof(out));
}

/* The data are page-aligned, and the header before them: one write(2) of one piece. */
static void on_read(int fd, uint64_t unique, uint32_t size, char *data) {
    struct fuse_out_header *out = (struct fuse_out_header *)(data - sizeof(*out));
    if (size > MAX_WRITE) size = MAX_WRITE;
    *out = (struct fuse_out_header){.len = sizeof(*out) + size, .unique = unique};
    if (write(fd, out, out->len) < 0 && errno != ENOENT && errno != ENODEV) {
        perror("bare_fuse: reply");
    }
}

static void on_write(int fd, uint64_t unique, uint32_t size) {
    struct fuse_write_out out = {.size = size};
    reply(fd, unique, 0, &out, sizeof(out));
}

static void answer(int fd, struct fuse_in_header *in, char *data) {
    const void *argument = in + 1;
    switch (in->opcode) {
    case FUSE_READ:
        on_read(fd, in->unique, ((const struct fuse_read_in *)argument)->size, data);
        break;
    case FUSE_WRITE:
        on_write(fd, in->unique, ((const struct fuse_write_in *)argument)->size);
        break;
    case FUSE_INIT:
        on_init(fd, in->unique, argument);
        break;
    case FUSE_LOOKUP:
        on_lookup(fd, in->unique, argument);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        on_attributes(fd, in->unique, in->nodeid);
        break;
    case FUSE_OPEN:
        on_open(fd, in->unique);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_RELEASE:
        reply(fd, in->unique, 0, NULL, 0);
        break;
    default:
        reply(fd, in->unique, -ENOSYS, NULL, 0);
    }
}

static int clone_of(int fd) {
    uint32_t source = (uint32_t)fd;
    int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (clone < 0 || ioctl(clone, FUSE_DEV_IOC_CLONE, &source)) {
        perror("bare_fuse: clone");
        exit(1);
    }
    return clone;
}

static void *serve(void *unused) {
    (void)unused;
    /* A WRITE's header and argument end where a page of data begins. */
    const size_t head = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in);
    char *block = aligned_alloc(PAGE, PAGE + MAX_WRITE + PAGE);
    int fd = clone_of(mounted_fd);
    if (block == NULL) {
        perror("bare_fuse");
        exit(1);
    }
    memset(block, 0x5A, PAGE + MAX_WRITE + PAGE);
    for (;;) {
        struct fuse_in_header *in = (struct fuse_in_header *)(block + PAGE - head);
        ssize_t got = read(fd, in, head + MAX_WRITE + PAGE);
        if (got >= (ssize_t)sizeof(*in)) {
            answer(fd, in, block + PAGE);
        } else if (got < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT) {
            break;
        }
    }
    free(block);
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    int count = argc == 4 ? atoi(argv[2]) : 0;
    if (count < 1 || count > 64) {
        fprintf(stderr, "usage: bare_fuse SIZE THREADS MOUNTPOINT\n");
        return 2;
    }
    flat_size = strtoull(argv[1], NULL, 10);
    mounted_fd = fuse_open_channel(argv[3], "fsname=bare_fuse,subtype=bare_fuse");
    if (mounted_fd < 0) {
        perror("bare_fuse: mount");
        return 1;
    }
    for (int i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, serve, NULL)) {
            perror("bare_fuse: thread");
            return 1;
        }
    }
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    return 0;
}
