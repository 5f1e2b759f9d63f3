/* Running a program that answers in one line, with a time limit. */
#ifndef TRIMTON_CHECKER_H
#define TRIMTON_CHECKER_H

#include <stddef.h>

#include "answer.h"

/* Run ``argv`` (found on PATH, no shell) with ``input`` as its standard input, and read
   ``allow\t<text>``, ``redirect\t<folder>`` or ``veto\t<reason>`` from its standard output. What
   it prints on standard error goes to the server's log. A program that cannot be started, fails,
   answers anything else or takes longer than ``time_limit_ms`` is a veto; it and what it started
   are killed. */
void run_checker(
    char* const argv[], const char* input, size_t input_bytes, int time_limit_ms, Answer* answer);

#endif
