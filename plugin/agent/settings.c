#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TIME_LIMIT_MS_MAX = 600000 };

/* A variable of the server's environment wins over the parameter: who may write a model's
   configuration cannot loosen what the server's operator has set. What is run can be set by the
   operator alone. */
static const struct {
  const char* parameter;
  const char* variable;
  const char* otherwise;
} TABLE[SETTING_COUNT] = {
    [SETTING_MODE] = {"mode", "TRIMTON_AGENT_MODE", "enforce"},
    [SETTING_KEY_FILE] = {"key_file", "TRIMTON_AGENT_KEY_FILE", ""},
    [SETTING_RECORD_FILE] = {"record_file", "TRIMTON_AGENT_RECORD_FILE", ""},
    [SETTING_TIME_LIMIT_MS] = {"time_limit_ms", "TRIMTON_AGENT_TIME_LIMIT_MS", "10000"},
    [SETTING_POLICY] = {"policy", "TRIMTON_AGENT_POLICY", ""},
    [SETTING_REDIRECT] = {"redirect", NULL, ""},
    [SETTING_PYTHON] = {NULL, "TRIMTON_AGENT_PYTHON", "python3"},
};

static int find(const char* parameter) {
  for (int i = 0; i < SETTING_COUNT; ++i) {
    if (TABLE[i].parameter != NULL && strcmp(TABLE[i].parameter, parameter) == 0) return i;
  }
  return -1;
}

static int read_parameters(
    TRITONREPOAGENT_Agent* agent, TRITONREPOAGENT_AgentModel* model, Settings* settings,
    Answer* answer) {
  uint32_t count = 0;
  TRITONSERVER_Error* error = TRITONREPOAGENT_ModelParameterCount(agent, model, &count);
  int known = 1;
  for (uint32_t i = 0; error == NULL && i < count; ++i) {
    const char* name = NULL;
    const char* value = NULL;
    error = TRITONREPOAGENT_ModelParameter(agent, model, i, &name, &value);
    if (error != NULL) break;
    const int setting = find(name);
    if (setting >= 0) {
      settings->values[setting] = value;
    } else {
      known = 0;
      veto(answer, "the agent has no parameter '%s'; see docs/agent.md", name);
    }
  }
  if (error != NULL) {
    veto(answer, "the server gives no parameters: %s", TRITONSERVER_ErrorMessage(error));
    TRITONSERVER_ErrorDelete(error);
    return 0;
  }
  return known;
}

/* A whole number of milliseconds from 1 to the maximum; 0 for anything else. */
static int parse_time_limit_ms(const char* text) {
  char* end = NULL;
  errno = 0;
  const long value = strtol(text, &end, 10);
  const int whole = errno == 0 && end != text && *end == '\0';
  return whole && value >= 1 && value <= TIME_LIMIT_MS_MAX ? (int)value : 0;
}

int read_settings(
    TRITONREPOAGENT_Agent* agent, TRITONREPOAGENT_AgentModel* model, Settings* settings,
    Answer* answer) {
  for (int i = 0; i < SETTING_COUNT; ++i) settings->values[i] = TABLE[i].otherwise;
  const int parameters_are_right = read_parameters(agent, model, settings, answer);
  for (int i = 0; i < SETTING_COUNT; ++i) {
    const char* value = TABLE[i].variable == NULL ? NULL : getenv(TABLE[i].variable);
    if (value != NULL && *value != '\0') settings->values[i] = value;
  }
  const char* mode = settings->values[SETTING_MODE];
  settings->only_warns = strcmp(mode, "warn") == 0;
  settings->time_limit_ms = parse_time_limit_ms(settings->values[SETTING_TIME_LIMIT_MS]);
  if (!parameters_are_right) return 0;
  if (!settings->only_warns && strcmp(mode, "enforce") != 0) {
    veto(answer, "mode is '%s'; it can be enforce or warn", mode);
    return 0;
  }
  if (settings->time_limit_ms == 0) {
    veto(
        answer, "time_limit_ms is '%s'; it can be 1 to %d",
        settings->values[SETTING_TIME_LIMIT_MS], TIME_LIMIT_MS_MAX);
    return 0;
  }
  return 1;
}
