/*
 * Drives every ioctl of lvolfs.h, the way a C program would.
 *
 *     every_ioctl VOLUMES SNAPSHOTS
 *
 * VOLUMES/v has 6 clusters of 1 MiB, all written; VOLUMES/copy has the same size. Makes the
 * snapshot "s" and the clone "c", registers and reads checksums, copies clusters. Prints what
 * it finds, one fact a line; exits with 1 at the first surprise.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lvolfs.h"

#define CLUSTERS 6

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "%s is not as expected\n", what);
        exit(1);
    }
}

static int open_file(const char *directory, const char *name) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        fail(path);
    }
    return fd;
}

static void call(int fd, unsigned long request, void *argument, const char *name) {
    if (ioctl(fd, request, argument) < 0) {
        fail(name);
    }
}

static void expect(int fd, unsigned long request, void *argument, int code, const char *name) {
    if (ioctl(fd, request, argument) == 0 || errno != code) {
        fprintf(stderr, "%s: %s instead of %s\n", name, strerror(errno), strerror(code));
        exit(1);
    }
}

static void info(int fd, const char *name, unsigned type, unsigned long long owned) {
    struct lvolfs_info info = {.size = sizeof(info)};
    call(fd, LVOLFS_IOC_INFO, &info, "INFO");
    check(strcmp(info.name, name) == 0, "name");
    check(strlen(info.uuid) == 36, "uuid");
    check(info.type == type, "type");
    check(info.num_clusters == CLUSTERS && info.cluster_size == 1u << 20, "clusters");
    check(info.bytes == info.num_clusters * info.cluster_size, "bytes");
    check(info.num_allocated_clusters == owned, "owned clusters");
    printf("info %s parent=%s children=%u properties=%u\n", name, info.parent, info.num_children,
           info.properties);
}

static void snapshot_and_clone(int volume, const char *snapshots) {
    struct lvolfs_create create = {.size = sizeof(create)};
    strcpy(create.name, "s");
    call(volume, LVOLFS_IOC_SNAPSHOT, &create, "SNAPSHOT");
    printf("snapshot %s\n", create.uuid);
    expect(volume, LVOLFS_IOC_SNAPSHOT, &create, EEXIST, "SNAPSHOT again");
    int snapshot = open_file(snapshots, "s");
    strcpy(create.name, "c");
    call(snapshot, LVOLFS_IOC_CLONE, &create, "CLONE");
    printf("clone %s\n", create.uuid);
    close(snapshot);
}

static void checksums(int snapshot, int volume) {
    struct lvolfs_checksum_get whole = {.size = sizeof(whole)};
    expect(snapshot, LVOLFS_IOC_CHECKSUM_GET, &whole, ENODATA, "CHECKSUM_GET before");
    expect(volume, LVOLFS_IOC_CHECKSUM_GET, &whole, EINVAL, "CHECKSUM_GET of a volume");

    struct lvolfs_checksum_register request = {.size = sizeof(request)};
    request.start = CLUSTERS;
    request.count = 1;
    expect(snapshot, LVOLFS_IOC_CHECKSUM_REGISTER, &request, ERANGE, "REGISTER past the end");
    request.start = request.count = 0;
    request.algorithm = LVOLFS_CRC64;
    call(snapshot, LVOLFS_IOC_CHECKSUM_REGISTER, &request, "CHECKSUM_REGISTER");
    check(request.id > 0, "operation id");

    struct lvolfs_checksum_status status = {.size = sizeof(status)};
    do {
        usleep(10000);
        call(snapshot, LVOLFS_IOC_CHECKSUM_STATUS, &status, "CHECKSUM_STATUS");
    } while (status.state == LVOLFS_STATE_IN_PROGRESS);
    check(status.state == LVOLFS_STATE_COMPLETE, "state of the registration");
    check(status.done == CLUSTERS && status.total == CLUSTERS, "progress of the registration");

    call(snapshot, LVOLFS_IOC_CHECKSUM_GET, &whole, "CHECKSUM_GET");
    check(whole.algorithm == LVOLFS_CRC64, "algorithm");
    printf("checksum %016llx\n", whole.checksum);

    static struct lvolfs_checksum_range range;
    range.size = sizeof(range);
    range.start = 1;
    range.count = CLUSTERS - 1;
    call(snapshot, LVOLFS_IOC_CHECKSUM_RANGE, &range, "CHECKSUM_RANGE");
    check(range.count == CLUSTERS - 1, "count of the range");
    for (unsigned i = 0; i < range.count; i++) {
        check(range.state[i] == LVOLFS_CLUSTER_WRITTEN, "cluster state");
        printf("cluster %u %016llx\n", i + 1, range.checksum[i]);
    }
    range.count = CLUSTERS;
    expect(snapshot, LVOLFS_IOC_CHECKSUM_RANGE, &range, ERANGE, "CHECKSUM_RANGE past the end");
}

static void fragmap(int fd, unsigned expected) {
    static struct lvolfs_fragmap map;
    map.size = sizeof(map);
    map.start = 0;
    map.count = CLUSTERS;
    call(fd, LVOLFS_IOC_FRAGMAP, &map, "FRAGMAP");
    check(map.count == CLUSTERS, "count of the fragmap");
    check(map.bits[0] == expected, "fragmap");
    printf("fragmap %02x allocated=%llu\n", map.bits[0], map.allocated);
}

static void copy(int snapshot, int clone) {
    static struct lvolfs_copy_start start;
    start.size = sizeof(start);
    strcpy(start.destination, "copy");
    expect(snapshot, LVOLFS_IOC_COPY_START, &start, EINVAL, "COPY_START of nothing");
    start.num_clusters = 2;
    start.clusters[0] = 4;
    start.clusters[1] = CLUSTERS;
    expect(snapshot, LVOLFS_IOC_COPY_START, &start, ERANGE, "COPY_START past the end");
    start.clusters[1] = 1;
    call(snapshot, LVOLFS_IOC_COPY_START, &start, "COPY_START");

    struct lvolfs_copy_status status = {.size = sizeof(status), .id = start.id};
    do {
        usleep(10000);
        call(snapshot, LVOLFS_IOC_COPY_STATUS, &status, "COPY_STATUS");
    } while (status.state == LVOLFS_STATE_IN_PROGRESS);
    check(status.state == LVOLFS_STATE_COMPLETE, "state of the copy");
    check(status.total == 2 && status.copied == 2 && status.unmapped == 0, "copied clusters");
    check(status.bytes == 2u << 20, "copied bytes");
    printf("copy %llu bytes\n", status.bytes);

    struct lvolfs_copy_status latest = {.size = sizeof(latest)};
    call(snapshot, LVOLFS_IOC_COPY_STATUS, &latest, "COPY_STATUS of the latest");
    check(latest.id == start.id, "latest copy");
    latest.id = 0;
    expect(clone, LVOLFS_IOC_COPY_STATUS, &latest, ENODATA, "COPY_STATUS without a copy");
    latest.id = 123456789;
    expect(snapshot, LVOLFS_IOC_COPY_STATUS, &latest, ENOENT, "COPY_STATUS of an unknown copy");

    struct lvolfs_copy_cancel cancel = {.size = sizeof(cancel), .id = start.id};
    call(snapshot, LVOLFS_IOC_COPY_CANCEL, &cancel, "COPY_CANCEL after the end");
    cancel.id = 123456789;
    expect(snapshot, LVOLFS_IOC_COPY_CANCEL, &cancel, ENOENT, "COPY_CANCEL of an unknown copy");

    start.num_clusters = 0;
    start.flags = LVOLFS_COPY_ALL | LVOLFS_COPY_DEEP;
    call(snapshot, LVOLFS_IOC_COPY_START, &start, "COPY_START deep");
    status.id = start.id;
    do {
        usleep(10000);
        call(snapshot, LVOLFS_IOC_COPY_STATUS, &status, "COPY_STATUS deep");
    } while (status.state == LVOLFS_STATE_IN_PROGRESS);
    check(status.state == LVOLFS_STATE_COMPLETE && status.copied == CLUSTERS, "deep copy");
}

static void mistakes(int fd, const char *volumes) {
    struct lvolfs_info info = {.size = sizeof(info) - 8};
    expect(fd, LVOLFS_IOC_INFO, &info, EINVAL, "INFO of another size");
    info.size = sizeof(info);
    info.flags = 1;
    expect(fd, LVOLFS_IOC_INFO, &info, EINVAL, "INFO with a flag");
    info.flags = 0;
    info.reserved[7] = 1;
    expect(fd, LVOLFS_IOC_INFO, &info, EINVAL, "INFO with reserved bytes");
    info.reserved[7] = 0;
    expect(fd, _IOWR('L', 99, struct lvolfs_info), &info, ENOTTY, "an unknown number");
    expect(fd, _IOR('L', 1, struct lvolfs_info), &info, ENOTTY, "another direction");
    expect(fd, _IO('L', 1), NULL, ENOTTY, "no argument");
    expect(fd, _IOWR('M', 1, struct lvolfs_info), &info, ENOTTY, "another magic");

    int directory = open(volumes, O_RDONLY | O_DIRECTORY);
    expect(directory, LVOLFS_IOC_INFO, &info, ENOTTY, "INFO of a directory");
    close(directory);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    int volume = open_file(argv[1], "v");
    info(volume, "v", LVOLFS_VOLUME, CLUSTERS);
    snapshot_and_clone(volume, argv[2]);
    int snapshot = open_file(argv[2], "s");
    int clone = open_file(argv[1], "c");
    info(snapshot, "s", LVOLFS_SNAPSHOT, CLUSTERS);
    info(clone, "c", LVOLFS_VOLUME, 0);
    checksums(snapshot, volume);
    fragmap(snapshot, 0x3f);
    fragmap(clone, 0);
    copy(snapshot, clone);
    mistakes(volume, argv[1]);
    return 0;
}
