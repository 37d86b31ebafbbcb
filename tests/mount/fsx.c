/* Random operations on one volume file, against a copy in memory.
 *
 *   fsx FILE CLUSTER_SIZE MOST_CLUSTERS SEED OPERATIONS LOG [direct]
 *
 * FILE is a volume of a mount, of size 0 to begin with: its size is always a whole number of
 * clusters, also after a truncation to something else. The same seed does the same again, up to
 * operation OPERATIONS; LOG says what each one was. With `direct` half of the reads and writes
 * bypass the page cache, at any offset and length. What a volume cannot do has to be refused, and
 * nothing may have changed. Exit status 1 and a message: they differ.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *path;
static int file = -1, direct = -1;
static int use_direct;
static size_t cluster, most, size;
static unsigned char *model, *buffer;
static uint64_t state;
static long number;
static FILE *operations;
static unsigned long done[18];

static void fail(const char *format, ...)
{
    va_list arguments;
    int error = errno;

    fprintf(stderr, "operation %ld: ", number);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (errno %d, %s)\n", error, strerror(error));
    fflush(operations);
    exit(1);
}

static uint64_t chance(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 2685821657736338717ULL >> 16;
}

static size_t below(size_t limit)
{
    return limit ? chance() % limit : 0;
}

/* Odd places mostly; edges of sectors, pages and clusters often, where mistakes live. */
static size_t place(size_t limit)
{
    static const size_t grain[] = {1, 1, 1, 512, 4096, 65536};
    size_t unit = grain[below(6)];

    return below(limit) / unit * unit;
}

static void range(size_t limit, size_t *offset, size_t *length)
{
    static const size_t lengths[] = {1, 511, 512, 4096, 65536};

    *offset = place(limit);
    *length = below(2) ? lengths[below(5)] : 1 + place(3 * cluster);
    if (*length > limit - *offset)
        *length = limit - *offset;
}

static void grow(size_t end)
{
    end = (end + cluster - 1) / cluster * cluster;
    if (end > size) {
        memset(model + size, 0, end - size);
        size = end;
    }
}

static void compare(const unsigned char *found, size_t offset, size_t length, const char *what)
{
    for (size_t i = 0; i < length; i++)
        if (found[i] != model[offset + i])
            fail("%s at %zu, length %zu: byte %zu is %02x instead of %02x", what, offset, length,
                 offset + i, found[i], model[offset + i]);
}

static void check_size(void)
{
    struct stat status;

    if (fstat(file, &status))
        fail("fstat");
    if ((size_t)status.st_size != size)
        fail("the size is %lld instead of %zu", (long long)status.st_size, size);
}

/* The kernel's own idea of the size, which mappings and copies are held to. */
static void check_size_in_kernel(void)
{
    if ((size_t)lseek(file, 0, SEEK_END) != size)
        fail("SEEK_END is %lld instead of %zu", (long long)lseek(file, 0, SEEK_END), size);
}

/* The file, or the same opened with O_DIRECT. */
static int either(void)
{
    return use_direct && below(2) ? direct : file;
}

static void do_read(size_t offset, size_t length)
{
    size_t expected = offset >= size ? 0 : length < size - offset ? length : size - offset;
    ssize_t got = pread(either(), buffer, length, offset);

    if (got != (ssize_t)expected)
        fail("pread of %zu at %zu gives %zd instead of %zu", length, offset, got, expected);
    compare(buffer, offset, expected, "read");
}

static void fill(unsigned char *at, size_t length)
{
    uint64_t value = chance() | 1;

    for (size_t i = 0; i < length; i++) {
        value = value * 6364136223846793005ULL + 1442695040888963407ULL;
        at[i] = value >> 56;
    }
}

static void do_write(size_t offset, size_t length)
{
    if (!length)
        return;
    fill(buffer, length);
    if (pwrite(either(), buffer, length, offset) != (ssize_t)length)
        fail("pwrite of %zu at %zu", length, offset);
    grow(offset + length);
    memcpy(model + offset, buffer, length);
}

static void do_map(size_t offset, size_t length, int write)
{
    size_t start = offset / 4096 * 4096;
    unsigned char *at;

    if (!length)
        return;
    at = mmap(NULL, offset + length - start, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
              file, start);
    if (at == MAP_FAILED)
        fail("mmap of %zu at %zu", length, offset);
    if (write) {
        fill(buffer, length);
        memcpy(at + (offset - start), buffer, length);
        memcpy(model + offset, buffer, length);
        if (below(2) && msync(at, offset + length - start, MS_SYNC))
            fail("msync");
    } else {
        compare(at + (offset - start), offset, length, "mapped read");
    }
    if (munmap(at, offset + length - start))
        fail("munmap");
}

static void do_truncate(size_t wanted)
{
    size_t rounded = (wanted + cluster - 1) / cluster * cluster;

    if (ftruncate(file, wanted))
        fail("ftruncate to %zu", wanted);
    if (rounded > size)
        grow(rounded);
    size = rounded;
}

static void clear(size_t offset, size_t length)
{
    size_t end = offset + length < size ? offset + length : size;

    if (offset < end)
        memset(model + offset, 0, end - offset);
}

static void do_fallocate(int mode, size_t offset, size_t length)
{
    if (!length)
        return;
    /* A volume has no room behind its last cluster that could be kept out of its size. */
    if (mode & FALLOC_FL_KEEP_SIZE && !(mode & FALLOC_FL_PUNCH_HOLE) && offset + length > size) {
        if (fallocate(file, mode, offset, length) == 0 || errno != EOPNOTSUPP)
            fail("fallocate mode %#x of %zu at %zu is not refused", mode, length, offset);
        return;
    }
    if (fallocate(file, mode, offset, length))
        fail("fallocate mode %#x of %zu at %zu", mode, length, offset);
    if (!(mode & FALLOC_FL_KEEP_SIZE))
        grow(offset + length);
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        clear(offset, length);
}

static void do_copy(size_t from, size_t length, size_t to)
{
    loff_t source = from, target = to;
    size_t left = length;

    /* The kernel refuses ranges of one file that overlap. */
    if (!length || to + length > most || (from < to + length && to < from + length))
        return;
    memcpy(buffer, model + from, length);
    while (left) {
        ssize_t copied = copy_file_range(file, &source, file, &target, left, 0);

        if (copied <= 0)
            fail("copy_file_range of %zu from %zu to %zu gives %zd", length, from, to, copied);
        left -= copied;
    }
    grow(to + length);
    memcpy(model + to, buffer, length);
}

/* In three pieces, of which one may be empty. */
static void do_vectors(size_t offset, size_t length, int write)
{
    size_t first = below(length + 1), second = below(length - first + 1);
    struct iovec pieces[] = {{buffer, first},
                             {buffer + first, second},
                             {buffer + first + second, length - first - second}};

    if (!length)
        return;
    if (write) {
        fill(buffer, length);
        if (pwritev(either(), pieces, 3, offset) != (ssize_t)length)
            fail("pwritev of %zu at %zu", length, offset);
        grow(offset + length);
        memcpy(model + offset, buffer, length);
    } else {
        if (preadv(either(), pieces, 3, offset) != (ssize_t)length)
            fail("preadv of %zu at %zu", length, offset);
        compare(buffer, offset, length, "preadv");
    }
}

/* What a volume cannot do: to move what is behind a range, and to share what it owns. */
static void refuse_fallocate(int mode, size_t offset, size_t length)
{
    if (fallocate(file, mode, offset, length ? length : 1) == 0 || errno != EOPNOTSUPP)
        fail("fallocate mode %#x of %zu at %zu is not refused", mode, length, offset);
}

static void refuse_clone(size_t offset, size_t length, size_t target)
{
    struct file_clone_range range = {file, offset, length, target};
    unsigned char room[sizeof(struct file_dedupe_range) + sizeof(struct file_dedupe_range_info)] = {0};
    struct file_dedupe_range *same = (void *)room;

    if (ioctl(file, FICLONERANGE, &range) == 0)
        fail("FICLONERANGE of %zu at %zu is not refused", length, offset);
    same->src_offset = offset;
    same->src_length = length;
    same->dest_count = 1;
    same->info[0].dest_fd = file;
    same->info[0].dest_offset = target;
    if (ioctl(file, FIDEDUPERANGE, same) == 0 && same->info[0].bytes_deduped)
        fail("FIDEDUPERANGE of %zu at %zu is not refused", length, offset);
}

/* Everything before the data that is found is zeros, and a hole is one. */
static void do_seek(size_t offset)
{
    off_t data = lseek(file, offset, SEEK_DATA), hole;
    size_t end = data < 0 ? size : (size_t)data;

    if (offset >= size) {
        if (data >= 0 || errno != ENXIO)
            fail("SEEK_DATA at %zu, behind the end, gives %lld", offset, (long long)data);
        return;
    }
    if (data < 0 && errno != ENXIO)
        fail("SEEK_DATA at %zu", offset);
    for (size_t i = offset; i < end; i++)
        if (model[i])
            fail("SEEK_DATA at %zu gives %lld, but byte %zu is %02x", offset, (long long)data, i,
                 model[i]);
    hole = lseek(file, offset, SEEK_HOLE);
    if (hole < (off_t)offset || hole > (off_t)size)
        fail("SEEK_HOLE at %zu gives %lld", offset, (long long)hole);
    if ((size_t)hole < size) {
        data = lseek(file, hole, SEEK_DATA);
        end = data < 0 ? size : (size_t)data;
        for (size_t i = hole; i < end; i++)
            if (model[i])
                fail("byte %zu in the hole at %lld is %02x", i, (long long)hole, model[i]);
    }
}

static void open_file(void)
{
    if ((file >= 0 && close(file)) || (direct >= 0 && close(direct)))
        fail("close");
    file = open(path, O_RDWR);
    direct = use_direct ? open(path, O_RDWR | O_DIRECT) : -1;
    if (file < 0 || (use_direct && direct < 0))
        fail("open");
}

/* A page of a mapping that cannot be had. */
static void on_bus_error(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    struct stat status;

    fstat(file, &status);
    errno = 0;
    fail("SIGBUS at %p; the size is %lld, expected %zu", info->si_addr, (long long)status.st_size,
         size);
}

static void one(void)
{
    static const char *const names[] = {"read",      "write",    "mapread", "mapwrite",
                                        "truncate",  "punch",    "zero",    "zero keeping size",
                                        "fallocate", "copy",     "fsync",   "reopen",
                                        "readv",     "writev",   "seek",    "collapse",
                                        "insert",    "clone"};
    static const unsigned char weights[] = {0, 0, 0, 0, 1, 1, 1, 1, 1, 2,  2,  3,  3,  3,  4,  4,
                                            5, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17};
    size_t offset, length, target = below(most);
    int kind = weights[below(sizeof(weights))];
    int inside = kind == 2 || kind == 3 || kind == 9 || kind == 12;

    range(inside ? size : most, &offset, &length);
    fprintf(operations, "%ld %s %zu %zu %zu\n", number, names[kind], offset, length, target);
    done[kind]++;
    switch (kind) {
    case 0: do_read(offset, length); break;
    case 1: do_write(offset, length); break;
    case 2: do_map(offset, length, 0); break;
    case 3: do_map(offset, length, 1); break;
    case 4: do_truncate(target); break;
    case 5: do_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length); break;
    case 6: do_fallocate(FALLOC_FL_ZERO_RANGE, offset, length); break;
    case 7: do_fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length); break;
    case 8: do_fallocate(below(2) ? FALLOC_FL_KEEP_SIZE : 0, offset, length); break;
    case 9: do_copy(offset, length, target); break;
    case 10:
        if (below(2) ? fsync(file) : fdatasync(file))
            fail("fsync");
        break;
    case 11: open_file(); break;
    case 12: do_vectors(offset, length, 0); break;
    case 13: do_vectors(offset, length, 1); break;
    case 14: do_seek(offset); break;
    case 15: refuse_fallocate(FALLOC_FL_COLLAPSE_RANGE, offset, length); break;
    case 16:
        refuse_fallocate(below(2) ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_UNSHARE_RANGE, offset, length);
        break;
    default: refuse_clone(offset, length, target);
    }
    check_size();
    check_size_in_kernel();
}

int main(int argc, char **argv)
{
    long count;

    if (argc != 7 && argc != 8) {
        fprintf(stderr, "usage: fsx FILE CLUSTER_SIZE MOST_CLUSTERS SEED OPERATIONS LOG [direct]\n");
        return 2;
    }
    path = argv[1];
    cluster = strtoul(argv[2], NULL, 10);
    most = cluster * strtoul(argv[3], NULL, 10);
    state = strtoull(argv[4], NULL, 10) * 0x9E3779B97F4A7C15ULL | 1;
    count = strtol(argv[5], NULL, 10);
    operations = fopen(argv[6], "w");
    use_direct = argc == 8;
    model = calloc(1, most);
    buffer = malloc(most);
    if (!cluster || !most || !operations || !model || !buffer)
        return 2;
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};

    sigaction(SIGBUS, &action, NULL);
    setvbuf(operations, NULL, _IOLBF, 0);
    open_file();
    for (number = 1; number <= count; number++) {
        one();
        if (number % 500 == 0)
            do_read(0, most);
    }
    do_read(0, most);
    if (fsync(file) || close(file))
        fail("the end");
    fwrite(model, 1, size, stdout);
    for (int i = 0; i < 18; i++)
        if (count >= 2000 && !done[i])
            fail("kind %d was never done", i);
    return 0;
}
