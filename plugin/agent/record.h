/* The agent's own record: one JSON object a line for each load that was decided. */
#ifndef TRIMTON_RECORD_H
#define TRIMTON_RECORD_H

#include <stdint.h>

#include "settings.h"

/* Append to ``record_file``; does nothing without one. Returns 0 or the errno of the failure. */
int write_record(
    const Settings* settings, const char* location, const Answer* answer, int64_t duration_us);

#endif
