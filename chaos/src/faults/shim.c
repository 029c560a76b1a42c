/* Preloaded into a server: makes chosen calls on chosen files lie, fail, or be the last thing it does.
 *
 * CHAOS_SHIM names the file with the rules, one a line: OP ACTION FROM COUNT PATHPART
 *   OP      sync (fsync, fdatasync; for `lie` msync and sync_file_range too) or read (pread, pread64)
 *   ACTION  lie (say yes, do nothing), eio (fail, do nothing), kill (SIGKILL instead of the call),
 *           killafter (the call, then SIGKILL), count (nothing but counting)
 *   FROM    the first matching call that is hit, from 1, counted in this process since the rule was read
 *   COUNT   how many calls are hit, 0: all from FROM on
 *   PATHPART a part of the file's path
 * The file is read again when it was replaced. Each hit adds a line "ACTION N PATH" to CHAOS_SHIM.hits.
 * Calls made without libc (a raw system call) are not seen: the hits tell what was.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define MAX_RULES 8
enum { LIE = 1, EIO_ = 2, KILL = 3, KILLAFTER = 4, COUNT = 5 };

struct rule {
    char op[8], action[16], part[512];
    long from, count, seen;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[MAX_RULES];
static int rule_count;
static struct timespec changed;
static ino_t inode;
static long long looked_ms = -1000;

static long long now_ms(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Under `turn`. At most every 5 ms, so that reads stay cheap. */
static void look(const char *path) {
    long long now = now_ms();
    struct stat st;
    FILE *file;
    if (now - looked_ms < 5) return;
    looked_ms = now;
    if (stat(path, &st) != 0) { rule_count = 0; inode = 0; return; }
    if (st.st_ino == inode && memcmp(&st.st_mtim, &changed, sizeof changed) == 0) return;
    file = fopen(path, "re");
    if (!file) return;
    inode = st.st_ino;
    changed = st.st_mtim;
    rule_count = 0;
    while (rule_count < MAX_RULES) {
        struct rule *rule = &rules[rule_count];
        if (fscanf(file, "%7s %15s %ld %ld %511s", rule->op, rule->action, &rule->from, &rule->count, rule->part) != 5) break;
        rule->seen = 0;
        rule_count++;
    }
    fclose(file);
}

static void note(const char *control, const struct rule *rule, const char *path) {
    char name[600], line[1200];
    int fd, length;
    snprintf(name, sizeof name, "%s.hits", control);
    fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    length = snprintf(line, sizeof line, "%s %ld %s\n", rule->action, rule->seen, path);
    if (write(fd, line, (size_t)length) < 0) { /* the harness will miss the hit and say so */ }
    close(fd);
}

static int what(const char *action) {
    if (!strcmp(action, "lie")) return LIE;
    if (!strcmp(action, "eio")) return EIO_;
    if (!strcmp(action, "kill")) return KILL;
    if (!strcmp(action, "killafter")) return KILLAFTER;
    return COUNT;
}

/* What is to happen to this call: 0 for nothing. */
static int decide(const char *op, int fd) {
    const char *control = getenv("CHAOS_SHIM");
    char link[64], path[1024];
    int i, action = 0, saved = errno;
    ssize_t length;
    if (!control) return 0;
    pthread_mutex_lock(&turn);
    look(control);
    for (i = 0; i < rule_count && !action; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->op, op) != 0) continue;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, path, sizeof path - 1);
        if (length < 0) continue;
        path[length] = 0;
        if (!strstr(path, rule->part)) continue;
        rule->seen++;
        if (rule->seen < rule->from || (rule->count && rule->seen >= rule->from + rule->count)) continue;
        action = what(rule->action);
        note(control, rule, path);
    }
    if (action == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return action;
}

static int synced(int fd, long call) {
    int action = decide("sync", fd), result;
    if (action == LIE) return 0;
    if (action == EIO_) { errno = EIO; return -1; }
    result = (int)syscall(call, fd);
    if (action == KILLAFTER) syscall(SYS_kill, getpid(), SIGKILL);
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int lies_to_all(void) {
    int i, found = 0;
    pthread_mutex_lock(&turn);
    for (i = 0; i < rule_count; i++) found |= what(rules[i].action) == LIE;
    pthread_mutex_unlock(&turn);
    return found;
}

int sync_file_range(int fd, off64_t from, off64_t length, unsigned int flags) {
    if (lies_to_all()) return 0;
    return (int)syscall(SYS_sync_file_range, fd, from, length, flags);
}

int msync(void *address, size_t length, int flags) {
    if (lies_to_all()) return 0;
    return (int)syscall(SYS_msync, address, length, flags);
}

static ssize_t read_at(int fd, void *buffer, size_t length, off64_t offset) {
    if (decide("read", fd) == EIO_) { errno = EIO; return -1; }
    return syscall(SYS_pread64, fd, buffer, length, offset);
}

ssize_t pread64(int fd, void *buffer, size_t length, off64_t offset) { return read_at(fd, buffer, length, offset); }
ssize_t pread(int fd, void *buffer, size_t length, off_t offset) { return read_at(fd, buffer, length, offset); }
