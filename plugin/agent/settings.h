/* The settings of one load: parameters of the model's configuration, the server's environment. */
#ifndef TRIMTON_SETTINGS_H
#define TRIMTON_SETTINGS_H

#include "answer.h"
#include "triton_api.h"

typedef enum {
  SETTING_MODE,
  SETTING_KEY_FILE,
  SETTING_RECORD_FILE,
  SETTING_TIME_LIMIT_MS,
  SETTING_POLICY,
  SETTING_REDIRECT,
  SETTING_PYTHON,
  SETTING_COUNT
} SettingName;

/* ``values`` are owned by the server, the environment or the program; "" = not set. */
typedef struct {
  const char* values[SETTING_COUNT];
  int time_limit_ms;
  int only_warns;
} Settings;

/* Read the settings. On a wrong one ``answer`` is a veto that names it, and 0 is returned; the
   settings can be used for the record all the same. */
int read_settings(
    TRITONREPOAGENT_Agent* agent, TRITONREPOAGENT_AgentModel* model, Settings* settings,
    Answer* answer);

#endif
