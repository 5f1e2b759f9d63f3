#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void put_string(FILE* out, const char* name, const char* value) {
  fprintf(out, "\"%s\": \"", name);
  for (const unsigned char* c = (const unsigned char*)value; *c != '\0'; ++c) {
    if (*c == '"' || *c == '\\') {
      fprintf(out, "\\%c", *c);
    } else if (*c < 0x20) {
      fprintf(out, "\\u%04x", *c);
    } else {
      fputc(*c, out);
    }
  }
  fputc('"', out);
}

static const char* outcome(const Settings* settings, const Answer* answer) {
  if (answer->kind == ANSWER_ALLOW) return "allow";
  if (answer->kind == ANSWER_REDIRECT) return "redirect";
  return settings->only_warns ? "warn" : "veto";
}

static char* line(
    const Settings* settings, const char* location, const Answer* answer, int64_t duration_us,
    size_t* bytes) {
  char* text = NULL;
  FILE* out = open_memstream(&text, bytes);
  if (out == NULL) return NULL;
  const time_t now = time(NULL);
  struct tm utc;
  char stamp[sizeof "0000-00-00T00:00:00+00:00"];
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S+00:00", gmtime_r(&now, &utc));
  fputc('{', out);
  put_string(out, "time", stamp);
  fputs(", ", out);
  put_string(out, "location", location);
  fputs(", ", out);
  put_string(out, "outcome", outcome(settings, answer));
  fputs(", ", out);
  put_string(out, answer->kind == ANSWER_REDIRECT ? "folder" : "reason", answer->text);
  fprintf(out, ", \"duration_us\": %lld}\n", (long long)duration_us);
  return fclose(out) == 0 ? text : NULL;
}

int write_record(
    const Settings* settings, const char* location, const Answer* answer, int64_t duration_us) {
  const char* path = settings->values[SETTING_RECORD_FILE];
  if (*path == '\0') return 0;
  /* Never a link, and never a pipe that nobody reads: the server waits for this. */
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int file = open(path, flags, 0640);
  if (file < 0) return errno;
  size_t bytes = 0;
  char* text = line(settings, location, answer, duration_us, &bytes);
  int failed = text == NULL ? ENOMEM : 0;
  if (failed == 0) {
    const ssize_t written = write(file, text, bytes); /* one write: lines do not mix */
    if (written < 0) failed = errno;
    else if ((size_t)written != bytes) failed = ENOSPC;
  }
  free(text);
  close(file);
  return failed;
}
