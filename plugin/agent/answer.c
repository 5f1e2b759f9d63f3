#include "answer.h"

#include <stdarg.h>
#include <stdio.h>

void veto(Answer* answer, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(answer->text, sizeof answer->text, format, arguments);
  va_end(arguments);
  answer->kind = ANSWER_VETO;
}
