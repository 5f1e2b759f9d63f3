/* Triton's repository agent "trimton": a model is loaded only if a signed proof covers it.

   The decision is check.py's, which lies beside this library; here it is asked with a time limit
   and carried out. No answer is a veto. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "answer.h"
#include "checker.h"
#include "record.h"
#include "settings.h"
#include "triton_api.h"

static const char CHECKER[] = "check.py";

static void log_message(TRITONSERVER_LogLevel level, const char* location, const char* text) {
  char* message = NULL;
  if (asprintf(&message, "trimton: %s: %s", location, text) < 0) return;
  TRITONSERVER_Error* error = TRITONSERVER_LogMessage(level, "trimton", 0, message);
  if (error != NULL) TRITONSERVER_ErrorDelete(error);
  free(message);
}

static void veto_by(Answer* answer, const char* what, TRITONSERVER_Error* error) {
  veto(answer, "%s: %s", what, TRITONSERVER_ErrorMessage(error));
  TRITONSERVER_ErrorDelete(error);
}

/* The checker's path: beside this library. */
static int checker_path(char path[PATH_MAX]) {
  Dl_info library;
  if (dladdr(CHECKER, &library) == 0 || library.dli_fname == NULL) return 0;
  const char* slash = strrchr(library.dli_fname, '/');
  const int folder = slash == NULL ? 0 : (int)(slash - library.dli_fname) + 1;
  const int length = snprintf(path, PATH_MAX, "%.*s%s", folder, library.dli_fname, CHECKER);
  return length > 0 && length < PATH_MAX;
}

/* Ask the checker about ``location`` under the configuration that the server holds, which is not
   that of config.pbtxt where a load request brings its own. */
static void ask(
    const Settings* settings, const char* location, TRITONSERVER_Message* config, Answer* answer) {
  const char* json = NULL;
  size_t json_bytes = 0;
  TRITONSERVER_Error* error = TRITONSERVER_MessageSerializeToJson(config, &json, &json_bytes);
  if (error != NULL) {
    veto_by(answer, "the server's configuration cannot be read", error);
    return;
  }
  char checker[PATH_MAX];
  if (!checker_path(checker)) {
    veto(answer, "the agent's folder cannot be found");
    return;
  }
  /* -I -S -B: nothing from the environment, no packages, no files written. */
  const char* const argv[] = {
      settings->values[SETTING_PYTHON], "-I", "-S", "-B", checker, location,
      settings->values[SETTING_KEY_FILE], settings->values[SETTING_POLICY],
      settings->values[SETTING_REDIRECT], NULL};
  run_checker((char* const*)argv, json, json_bytes, settings->time_limit_ms, answer);
}

static void decide(
    TRITONREPOAGENT_Agent* agent, TRITONREPOAGENT_AgentModel* model, const Settings* settings,
    TRITONREPOAGENT_ArtifactType artifact_type, const char* location, Answer* answer) {
  if (artifact_type != TRITONREPOAGENT_ARTIFACT_FILESYSTEM) {
    veto(answer, "only models in a local folder can be checked");
    return;
  }
  TRITONSERVER_Message* config = NULL;
  TRITONSERVER_Error* error = TRITONREPOAGENT_ModelConfig(agent, model, 1, &config);
  if (error != NULL) {
    veto_by(answer, "the server gives no configuration", error);
    return;
  }
  ask(settings, location, config, answer);
  TRITONSERVER_MessageDelete(config);
  if (answer->kind == ANSWER_REDIRECT) {
    error = TRITONREPOAGENT_ModelRepositoryUpdate(agent, model, artifact_type, answer->text);
    if (error != NULL) veto_by(answer, "the server does not redirect", error);
  }
}

static int64_t elapsed_us(const struct timespec* start) {
  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (int64_t)(end.tv_sec - start->tv_sec) * 1000000 +
         (end.tv_nsec - start->tv_nsec) / 1000;
}

/* Decide about the load, carry it out, record it; NULL lets the server go on. */
static TRITONSERVER_Error* on_load(
    TRITONREPOAGENT_Agent* agent, TRITONREPOAGENT_AgentModel* model,
    TRITONREPOAGENT_ArtifactType artifact_type, const char* location) {
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  Settings settings;
  Answer answer;
  if (read_settings(agent, model, &settings, &answer)) {
    decide(agent, model, &settings, artifact_type, location, &answer);
  }
  const int failed = write_record(&settings, location, &answer, elapsed_us(&start));
  if (failed != 0) {
    char text[ANSWER_TEXT_BYTES];
    snprintf(text, sizeof text, "the record file cannot be written: %s", strerror(failed));
    log_message(TRITONSERVER_LOG_ERROR, location, text);
  }
  if (answer.kind != ANSWER_VETO) {
    log_message(TRITONSERVER_LOG_INFO, location, answer.text);
    return NULL;
  }
  if (settings.only_warns) {
    log_message(TRITONSERVER_LOG_WARN, location, answer.text);
    return NULL;
  }
  char message[ANSWER_TEXT_BYTES + sizeof "trimton: "];
  snprintf(message, sizeof message, "trimton: %s", answer.text);
  return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, message);
}

TRITONSERVER_Error* TRITONREPOAGENT_ModelAction(
    TRITONREPOAGENT_Agent* agent, TRITONREPOAGENT_AgentModel* model,
    TRITONREPOAGENT_ActionType action) {
  if (action != TRITONREPOAGENT_ACTION_LOAD) return NULL;
  TRITONREPOAGENT_ArtifactType artifact_type;
  const char* current = NULL;
  TRITONSERVER_Error* error =
      TRITONREPOAGENT_ModelRepositoryLocation(agent, model, &artifact_type, &current);
  if (error != NULL) return error;
  char* location = strdup(current); /* a redirect replaces the server's string */
  if (location == NULL) {
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, "trimton: out of memory");
  }
  error = on_load(agent, model, artifact_type, location);
  free(location);
  return error;
}
