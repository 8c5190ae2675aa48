/* A layer between a program and the C library that disturbs one of the program's file calls.
 *
 * Preloaded (LD_PRELOAD), it counts the calls on paths below one folder and acts at a chosen one. The tests compile it with
 * `cc`. It is C because `open` and its kin take a variable number of arguments, which Rust cannot define.
 *
 *   TELOS_FAULTS_FOLDER  counts calls on paths below this folder; without it the layer does nothing
 *   TELOS_FAULTS_PART    counts only paths that contain this text
 *   TELOS_FAULTS_LOG     the file to which lines are appended: `N CALL BYTES PATH` per counted call, `hit CALL PATH` when it acts
 *   TELOS_FAULTS_QUIET   leave the counted calls out of the log
 *   TELOS_FAULTS_AT      the number of the call to act at, from 1
 *   TELOS_FAULTS_ACT     kill: SIGKILL before the call; torn: half of a write, then SIGKILL; fail: the call fails with
 *                        TELOS_FAULTS_ERRNO; short: half of a read or write; full: this and every later call that needs room
 *                        on the disk fails with ENOSPC
 *   TELOS_FAULTS_PARENT  act in the process that supervises; without it, in the one that works
 *
 * The table of descriptors is the kernel's own (/proc/self/fd), so duplicates and descriptors opened without the layer are known.
 * Calls that pass by the C library (inline system calls) are not seen.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum act { NONE, KILL, TORN, FAIL, SHORT, FULL };
/* What a call does: queries, transfers bytes, or needs space on the disk. */
enum need { ASKS, READS, WRITES, ROOM };
/* What becomes of it. */
enum fate { PASSES, FAILS, HALVES, TEARS };

static char folder[PATH_MAX], part[256], log_path[PATH_MAX];
static size_t folder_length;
static int quiet, error_number;
static enum act act;
static long at;
static atomic_long counted;

__attribute__((constructor)) static void begin(void) {
  const char *named = getenv("TELOS_FAULTS_FOLDER");
  int worker = getenv("TELOS_PARENT") != NULL, wanted = getenv("TELOS_FAULTS_PARENT") == NULL;
  if (!named || worker != wanted) return;
  const char *text = getenv("TELOS_FAULTS_PART");
  if (text) snprintf(part, sizeof part, "%s", text);
  if ((text = getenv("TELOS_FAULTS_LOG"))) snprintf(log_path, sizeof log_path, "%s", text);
  quiet = getenv("TELOS_FAULTS_QUIET") != NULL;
  if ((text = getenv("TELOS_FAULTS_AT"))) at = atol(text);
  if ((text = getenv("TELOS_FAULTS_ERRNO"))) error_number = atoi(text);
  if ((text = getenv("TELOS_FAULTS_ACT"))) {
    static const char *const names[] = {"none", "kill", "torn", "fail", "short", "full"};
    for (int i = 0; i < 6; i++)
      if (!strcmp(text, names[i])) act = (enum act)i;
  }
  snprintf(folder, sizeof folder, "%s", named);
  folder_length = strlen(folder);
}

static void say(const char *line, int length) {
  if (!log_path[0]) return;
  int file = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return;
  syscall(SYS_write, file, line, (size_t)length);
  syscall(SYS_close, file);
}

static void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

/* The path of a descriptor; 0 if it is not a path. */
static int path_of(int descriptor, char *to, size_t room) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, to, room - 1);
  if (length <= 0 || to[0] != '/') return 0;
  to[length] = 0;
  return 1;
}

static enum fate meets(const char *call, enum need need, size_t bytes, const char *path) {
  if (strncmp(path, folder, folder_length) || (path[folder_length] != '/' && path[folder_length])) return PASSES;
  if (part[0] && !strstr(path, part)) return PASSES;
  long number = atomic_fetch_add(&counted, 1) + 1;
  char line[PATH_MAX + 128];
  const char *below = path[folder_length] ? path + folder_length + 1 : ".";
  if (!quiet) say(line, snprintf(line, sizeof line, "%ld %s %zu %s\n", number, call, bytes, below));
  int full = act == FULL && number >= at && (need == WRITES || need == ROOM);
  int hit = act != NONE && act != FULL && number == at;
  if ((act == SHORT && (bytes < 2 || need == ASKS || need == ROOM)) || (act == TORN && (bytes < 2 || need != WRITES))) hit = 0;
  if (!full && !hit) return PASSES;
  say(line, snprintf(line, sizeof line, "hit %s %s\n", call, below));
  switch (act) {
    case KILL: die(); return PASSES;
    case TORN: return TEARS;
    case SHORT: return HALVES;
    default: errno = full ? ENOSPC : error_number; return FAILS;
  }
}

static enum fate on_path(const char *call, enum need need, int base, const char *path) {
  if (!folder_length || !path) return PASSES;
  int kept = errno;
  char whole[2 * PATH_MAX], start[PATH_MAX];
  static const char open_files[] = "/proc/self/fd/";
  if (!strncmp(path, open_files, sizeof open_files - 1)) {
    /* Through a folder that is held open. */
    char *rest;
    long file = strtol(path + sizeof open_files - 1, &rest, 10);
    if (!path_of((int)file, start, sizeof start)) return PASSES;
    snprintf(whole, sizeof whole, "%s%s", start, rest);
  } else if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
  else {
    if (base == AT_FDCWD ? syscall(SYS_getcwd, start, sizeof start) <= 0 : !path_of(base, start, sizeof start)) return PASSES;
    snprintf(whole, sizeof whole, path[0] ? "%s/%s" : "%s%s", start, path);
  }
  enum fate fate = meets(call, need, 0, whole);
  if (fate != FAILS) errno = kept;
  return fate;
}

static enum fate on_file(const char *call, enum need need, size_t bytes, int descriptor) {
  if (!folder_length) return PASSES;
  int kept = errno;
  char whole[PATH_MAX];
  enum fate fate = path_of(descriptor, whole, sizeof whole) ? meets(call, need, bytes, whole) : PASSES;
  if (fate != FAILS) errno = kept;
  return fate;
}

#define REAL(result, name, ...)                                       \
  static result (*real)(__VA_ARGS__);                                 \
  if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static mode_t mode_of(int flags, va_list *rest) {
  return flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(*rest, mode_t) : 0;
}

static enum fate opens(int base, const char *path, int flags) {
  return flags & O_CREAT ? on_path("create", ROOM, base, path) : on_path("open", ASKS, base, path);
}

#define OPEN(name)                                         \
  int name(const char *path, int flags, ...) {             \
    REAL(int, name, const char *, int, ...);               \
    va_list rest;                                          \
    va_start(rest, flags);                                 \
    mode_t mode = mode_of(flags, &rest);                   \
    va_end(rest);                                          \
    if (opens(AT_FDCWD, path, flags) == FAILS) return -1;  \
    return real(path, flags, mode);                        \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                       \
  int name(int base, const char *path, int flags, ...) {   \
    REAL(int, name, int, const char *, int, ...);          \
    va_list rest;                                          \
    va_start(rest, flags);                                 \
    mode_t mode = mode_of(flags, &rest);                   \
    va_end(rest);                                          \
    if (opens(base, path, flags) == FAILS) return -1;      \
    return real(base, path, flags, mode);                  \
  }
OPENAT(openat)
OPENAT(openat64)

/* Reads and writes: the count is halved, or half is written before the end. */
#define TRANSFER(name, call, need, buffer, extra, ...)                                     \
  ssize_t name(int file, buffer bytes, size_t count __VA_ARGS__) {                         \
    REAL(ssize_t, name, int, buffer, size_t __VA_ARGS__);                                  \
    switch (on_file(call, need, count, file)) {                                            \
      case FAILS: return -1;                                                               \
      case HALVES: count /= 2; break;                                                      \
      case TEARS: real(file, bytes, count / 2 extra); die(); break;                        \
      case PASSES: break;                                                                  \
    }                                                                                      \
    return real(file, bytes, count extra);                                                 \
  }
#define COMMA ,
#define PLACE , place
TRANSFER(read, "read", READS, void *, )
TRANSFER(write, "write", WRITES, const void *, )
TRANSFER(pread, "read", READS, void *, PLACE, , off_t place)
TRANSFER(pread64, "read", READS, void *, PLACE, , off64_t place)
TRANSFER(pwrite, "write", WRITES, const void *, PLACE, , off_t place)
TRANSFER(pwrite64, "write", WRITES, const void *, PLACE, , off64_t place)

/* Several buffers: one of them, where not all are to go. */
ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  enum fate fate = on_file("write", WRITES, bytes, file);
  if (fate == FAILS) return -1;
  if (fate == PASSES || count < 1) return real(file, parts, count);
  ssize_t done = count > 1 ? real(file, parts, 1) : syscall(SYS_write, file, parts[0].iov_base, bytes / 2);
  if (fate == TEARS) die();
  return done;
}

#define ON_PATH(result, wrong, name, call, need, base, path, arguments, ...) \
  result name(__VA_ARGS__) {                                                 \
    REAL(result, name, __VA_ARGS__);                                         \
    if (on_path(call, need, base, path) == FAILS) return wrong;              \
    return real arguments;                                                   \
  }
ON_PATH(int, -1, rename, "rename", ROOM, AT_FDCWD, to, (from, to), const char *from, const char *to)
ON_PATH(int, -1, renameat, "rename", ROOM, base, to, (old, from, base, to), int old, const char *from, int base, const char *to)
ON_PATH(int, -1, unlink, "unlink", ASKS, AT_FDCWD, path, (path), const char *path)
ON_PATH(int, -1, unlinkat, "unlink", ASKS, base, path, (base, path, flags), int base, const char *path, int flags)
ON_PATH(int, -1, rmdir, "rmdir", ASKS, AT_FDCWD, path, (path), const char *path)
ON_PATH(int, -1, mkdir, "mkdir", ROOM, AT_FDCWD, path, (path, mode), const char *path, mode_t mode)
ON_PATH(DIR *, NULL, opendir, "opendir", ASKS, AT_FDCWD, path, (path), const char *path)
ON_PATH(char *, NULL, realpath, "realpath", ASKS, AT_FDCWD, path, (path, to), const char *path, char *to)
ON_PATH(int, -1, statx, "stat", ASKS, base, path, (base, path, flags, mask, to), int base, const char *restrict path, int flags,
        unsigned mask, struct statx *restrict to)
ON_PATH(int, -1, stat64, "stat", ASKS, AT_FDCWD, path, (path, to), const char *restrict path, struct stat64 *restrict to)
ON_PATH(int, -1, lstat64, "stat", ASKS, AT_FDCWD, path, (path, to), const char *restrict path, struct stat64 *restrict to)
ON_PATH(int, -1, fstatat64, "stat", ASKS, base, path, (base, path, to, flags), int base, const char *restrict path,
        struct stat64 *restrict to, int flags)

#define ON_FILE(result, wrong, name, call, need, file, arguments, ...) \
  result name(__VA_ARGS__) {                                           \
    REAL(result, name, __VA_ARGS__);                                   \
    if (on_file(call, need, 0, file) == FAILS) return wrong;           \
    return real arguments;                                             \
  }
ON_FILE(int, -1, fsync, "fsync", ASKS, file, (file), int file)
ON_FILE(int, -1, fdatasync, "fsync", ASKS, file, (file), int file)
ON_FILE(int, -1, ftruncate, "truncate", ASKS, file, (file, length), int file, off_t length)
ON_FILE(int, -1, ftruncate64, "truncate", ASKS, file, (file, length), int file, off64_t length)
ON_FILE(int, -1, flock, "flock", ASKS, file, (file, how), int file, int how)
ON_FILE(int, -1, fstat64, "stat", ASKS, file, (file, to), int file, struct stat64 *to)
ON_FILE(struct dirent *, NULL, readdir, "readdir", ASKS, dirfd(entries), (entries), DIR *entries)
ON_FILE(struct dirent64 *, NULL, readdir64, "readdir", ASKS, dirfd(entries), (entries), DIR *entries)
ON_FILE(void *, MAP_FAILED, mmap, "mmap", ASKS, file, (start, length, how, flags, file, place), void *start, size_t length, int how,
        int flags, int file, off_t place)
ON_FILE(void *, MAP_FAILED, mmap64, "mmap", ASKS, file, (start, length, how, flags, file, place), void *start, size_t length, int how,
        int flags, int file, off64_t place)
