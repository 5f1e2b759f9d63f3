#include "checker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;

enum { NS_PER_MS = 1000000 };

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / NS_PER_MS;
}

static int remaining_ms(int64_t deadline_ms) {
  const int64_t left = deadline_ms - now_ms();
  return left > 0 ? (int)left : 0;
}

/* An anonymous file with ``input``, at its beginning; -1 on failure. A file, not a pipe, so that
   a program that does not read cannot block the writer. */
static int input_file(const char* input, size_t input_bytes) {
  const int file = memfd_create("trimton-config", MFD_CLOEXEC);
  if (file < 0) return -1;
  size_t done = 0;
  while (done < input_bytes) {
    const ssize_t written = write(file, input + done, input_bytes - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    done += (size_t)written;
  }
  if (done == input_bytes && lseek(file, 0, SEEK_SET) == 0) return file;
  close(file);
  return -1;
}

/* Start ``argv`` in a process group of its own, with default signals and none of the server's
   sockets; returns 0 or an errno. */
static int spawn(char* const argv[], int input, int output, pid_t* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none;
  sigset_t every;
  sigemptyset(&none);
  sigfillset(&every);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &every);
  const int failed = posix_spawnp(pid, argv[0], &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return failed;
}

typedef enum { READ_WHOLE, READ_LATE, READ_TOO_MUCH } ReadResult;

/* Read until the end of ``pipe`` or the deadline; ``text`` is terminated in any case. */
static ReadResult read_until_end(int pipe, char* text, size_t text_bytes, int64_t deadline_ms) {
  size_t filled = 0;
  ReadResult result = READ_LATE;
  while (filled + 1 < text_bytes) {
    struct pollfd ready = {.fd = pipe, .events = POLLIN};
    const int polled = poll(&ready, 1, remaining_ms(deadline_ms));
    if (polled < 0 && errno == EINTR) continue;
    if (polled <= 0) break;
    const ssize_t got = read(pipe, text + filled, text_bytes - 1 - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      result = READ_WHOLE;
      break;
    }
    filled += (size_t)got;
  }
  if (filled + 1 == text_bytes) result = READ_TOO_MUCH;
  text[filled] = '\0';
  return result;
}

/* Wait for the end until the deadline; 1 and the status, or 0 if it still runs. A server that
   ignores SIGCHLD leaves no status: the complete answer then has to do. */
static int wait_until_end(pid_t pid, int64_t deadline_ms, int* status) {
  const struct timespec pause = {.tv_nsec = NS_PER_MS / 2};
  *status = 0;
  for (;;) {
    const pid_t ended = waitpid(pid, status, WNOHANG);
    if (ended == pid || (ended < 0 && errno == ECHILD)) return 1;
    if (remaining_ms(deadline_ms) == 0) return 0;
    nanosleep(&pause, NULL);
  }
}

static void kill_group(pid_t pid) {
  kill(-pid, SIGKILL);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

static const struct {
  const char* word;
  AnswerKind kind;
} WORDS[] = {
    {"allow\t", ANSWER_ALLOW}, {"redirect\t", ANSWER_REDIRECT}, {"veto\t", ANSWER_VETO}};

/* ``line`` is one known word, a tab, some text and the only newline, at its end. */
static void parse(char* line, Answer* answer) {
  char* newline = strchr(line, '\n');
  if (newline != NULL && newline[1] == '\0') {
    *newline = '\0';
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; ++i) {
      const size_t length = strlen(WORDS[i].word);
      if (strncmp(line, WORDS[i].word, length) != 0 || line[length] == '\0') continue;
      answer->kind = WORDS[i].kind;
      snprintf(answer->text, sizeof answer->text, "%s", line + length);
      return;
    }
  }
  veto(answer, "the checker gave no answer that the agent knows");
}

static void converse(pid_t pid, int pipe, int time_limit_ms, int64_t deadline_ms, Answer* answer) {
  char line[ANSWER_TEXT_BYTES];
  int status = 0;
  const ReadResult result = read_until_end(pipe, line, sizeof line, deadline_ms);
  if (result == READ_TOO_MUCH) {
    kill_group(pid);
    veto(answer, "the checker answered more than %d bytes", ANSWER_TEXT_BYTES);
  } else if (result == READ_LATE || !wait_until_end(pid, deadline_ms, &status)) {
    kill_group(pid);
    veto(answer, "the checker did not answer within %d ms", time_limit_ms);
  } else if (WIFSIGNALED(status)) {
    veto(answer, "the checker was ended by signal %d", WTERMSIG(status));
  } else if (WEXITSTATUS(status) != 0) {
    veto(answer, "the checker failed with exit status %d", WEXITSTATUS(status));
  } else {
    parse(line, answer);
  }
}

void run_checker(
    char* const argv[], const char* input, size_t input_bytes, int time_limit_ms, Answer* answer) {
  const int64_t deadline_ms = now_ms() + time_limit_ms;
  const int config = input_file(input, input_bytes);
  int ends[2] = {-1, -1};
  pid_t pid = -1;
  if (config < 0 || pipe2(ends, O_CLOEXEC) != 0) {
    veto(answer, "the checker cannot be asked: %s", strerror(errno));
    if (config >= 0) close(config);
    return;
  }
  const int failed = spawn(argv, config, ends[1], &pid);
  close(config);
  close(ends[1]);
  if (failed != 0) {
    veto(answer, "the checker's interpreter %s cannot be started: %s", argv[0], strerror(failed));
  } else {
    converse(pid, ends[0], time_limit_ms, deadline_ms, answer);
  }
  close(ends[0]);
}
